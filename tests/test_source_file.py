"""A recording is replayed as if live: nothing early, nothing replayed late, a damaged file to its last good picture."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.sources import file as file_source
from deploy.sources import open_source
from deploy.sources.file import FileSource
from dyad import clock, media
from student.frontend import audio_window
from student.spec import StudentSpec

SPEC = StudentSpec()
FRAMES, SIZE = 45, 64


def picture(t: int) -> NDArray[np.uint8]:
    """Grey level that names its frame."""
    return np.full((SIZE, SIZE, 3), 5 * t + 10, np.uint8)


def frame_of(shown: NDArray[np.uint8] | None) -> int:
    assert shown is not None
    return round((float(shown.mean()) - 10) / 5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.5 s whose sound grows louder, so that a window tells when it was."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    samples = np.arange(clock.samples_until(FRAMES))
    sound = (np.sin(samples * 0.3) * samples / len(samples)).astype(np.float32)
    media.write_video(path, (picture(t) for t in range(FRAMES)), audio=sound, crf=10)
    return path


def opened(path: Path, **options: object) -> FileSource:
    source = FileSource(path, SPEC, **options)  # type: ignore[arg-type]
    source.start(100.0)
    source.wait_until_ready()
    return source


def test_every_frame_comes_once_in_order_and_then_the_end(clip: Path) -> None:
    source = opened(clip)
    packets = [source.read(t) for t in range(FRAMES)]
    assert [p.frame for p in packets if p] == list(range(FRAMES))
    assert [frame_of(p.picture) for p in packets if p] == list(range(FRAMES))
    assert source.read(FRAMES) is None
    assert source.note == ""
    source.close()


def test_a_recording_says_what_it_is_and_how_it_went(clip: Path) -> None:
    source = opened(clip)
    assert (source.recording, source.name, source.greeting) == (clip, "clip.mp4", "")
    packets = [source.read(t) for t in range(FRAMES)]
    assert all(p is not None and p.flags == () for p in packets)
    counts = source.counts
    assert counts.pictures == FRAMES
    assert counts.pictures_held == counts.pictures_dropped == counts.frames_without_sound == 0
    source.close()


def test_a_frame_is_due_when_it_has_ended_by_deadlines_that_never_drift(clip: Path) -> None:
    source = opened(clip)
    assert source.due_s(0) == pytest.approx(100 + 1 / 30)
    assert source.due_s(108_000 - 1) == pytest.approx(100 + 3600)
    packet = source.read(7)
    assert packet is not None
    assert packet.captured_at_s == source.due_s(7)
    source.close()


def test_the_sound_of_a_packet_ends_with_its_frame_and_holds_nothing_later(clip: Path) -> None:
    source, sound = opened(clip), media.read_audio(clip)
    for t in range(0, FRAMES, 4):
        packet = source.read(t)
        assert packet is not None
        end = clock.audio_end(t)
        expected = np.concatenate([np.zeros(800, np.float32), sound[:end]])[-800:]
        np.testing.assert_array_equal(packet.audio, expected)
        np.testing.assert_array_equal(packet.audio, audio_window(sound, t, SPEC))
    source.close()


def test_a_late_frame_is_dropped_not_replayed(clip: Path) -> None:
    source = opened(clip)
    first, later = source.read(0), source.read(20)
    assert first is not None
    assert later is not None
    assert (first.frame, later.frame, frame_of(later.picture)) == (0, 20, 20)
    source.close()


def test_decoding_runs_ahead_only_as_far_as_the_queue_is_long(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "AHEAD_FRAMES", 4)
    source = opened(clip)
    assert source._queue.maxsize == 4
    assert [source.read(t) is not None for t in range(FRAMES)] == [True] * FRAMES
    source.close()


def test_closing_early_ends_the_decoder(clip: Path) -> None:
    source = opened(clip)
    source.read(0)
    source.close()
    assert not source._thread.is_alive()


def test_a_limit_of_frames_ends_the_stream_without_calling_it_damaged(clip: Path) -> None:
    source = opened(clip, max_frames=10)
    assert sum(source.read(t) is not None for t in range(FRAMES)) == 10
    assert source.note == ""
    source.close()


def test_a_sound_file_beside_the_video_replaces_its_own_track(clip: Path, tmp_path: Path) -> None:
    media.write_wav(tmp_path / "other.wav", np.full(16000, 0.25, np.float32))
    source = opened(clip, audio=tmp_path / "other.wav")
    packet = source.read(10)
    assert packet is not None
    np.testing.assert_allclose(packet.audio, 0.25, atol=1e-3)
    assert not audio_window(source.sound, 40, SPEC).any(), "after the sound's end there is silence"
    source.close()


@pytest.mark.parametrize("header", [True, False])
def test_an_empty_sound_file_is_silence_not_an_error(clip: Path, tmp_path: Path, header: bool) -> None:
    path = tmp_path / "empty.wav"
    if header:
        media.write_wav(path, np.zeros(0, np.float32))
    else:
        path.touch()
    source = opened(clip, audio=path)
    packet = source.read(3)
    assert packet is not None
    assert not packet.audio.any()
    source.close()


def test_a_video_without_sound_plays_in_silence(tmp_path: Path) -> None:
    media.write_video(tmp_path / "mute.mp4", (picture(t) for t in range(5)))
    source = opened(tmp_path / "mute.mp4")
    packet = source.read(0)
    assert packet is not None
    assert packet.audio.shape == (800,)
    assert not packet.audio.any()
    source.close()


def test_a_truncated_file_plays_to_its_last_good_picture_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8) for _ in range(90))
    media.write_video(tmp_path / "whole.mp4", noise)
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    source = opened(tmp_path / "cut.mp4")
    shown = sum(source.read(t) is not None for t in range(90))
    assert 20 < shown < 80
    assert "cut.mp4" in source.note
    assert "of 3.0 s" in source.note
    source.close()


def test_a_missing_file_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.mp4: no such file"):
        FileSource(tmp_path / "nowhere.mp4", SPEC)


def test_a_folder_is_called_one(tmp_path: Path, clip: Path) -> None:
    for source, audio in ((str(tmp_path), None), (str(clip), str(tmp_path)), ("none", str(tmp_path))):
        with pytest.raises(media.MediaError, match=rf"^{tmp_path}: is a folder; give a file in it$"):
            open_source(source, audio, SPEC, clock.FakeClock())


def test_a_file_that_is_no_video_is_named_with_a_remedy(tmp_path: Path) -> None:
    media.write_wav(tmp_path / "only.wav", np.zeros(1600, np.float32))
    with pytest.raises(ValueError, match=r"only\.wav: holds no pictures; give a video file"):
        FileSource(tmp_path / "only.wav", SPEC)


@pytest.mark.parametrize("error", [ValueError("broken picture"), OSError("disk pulled out")])
def test_a_decoder_that_fails_ends_the_stream_with_its_error_instead_of_hanging(
    clip: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(path: Path) -> object:
        yield 0, picture(0)
        raise error

    monkeypatch.setattr(media, "iter_grid_frames", failing)
    source = opened(clip)
    assert source.read(0) is not None
    with pytest.raises(type(error), match=str(error)):
        source.read(1)
    source.close()
