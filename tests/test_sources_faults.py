"""What recordings from the field get wrong, each through FileSource with a file that really has the fault."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.sources import Packet
from deploy.sources.file import FileSource
from dyad import media
from dyad.clock import FPS, SAMPLE_RATE_HZ, audio_end
from student.frontend import Frontend
from student.spec import StudentSpec

SPEC = StudentSpec()
TICKS_HZ = 90_000
STEP = 8
"""Grey levels between the pictures of two moments 1/30 s apart, whole numbers of them apart from rounding."""


def grey(time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture that names its time within a second."""
    return np.full((size[1], size[0], 3), round(STEP * (time_s * FPS % 30)), np.uint8)


def moment(packet: Packet) -> float:
    """The time, within a second, that a packet's picture names, in frames."""
    assert packet.picture is not None
    return float(packet.picture.mean()) / STEP


def film(
    path: Path,
    times_s: list[float],
    *,
    sound: NDArray[np.float32] | None = None,
    sound_at_s: float = 0.0,
    breaks: dict[int, float] | None = None,
    pictures: list[NDArray[np.uint8]] | None = None,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Mux pictures presented at `times_s` and 16 kHz sound from `sound_at_s` on into Matroska.

    `breaks` shifts the stamps of all sound from a block on: {block: seconds}.
    """
    with av.open(str(path), "w", format="matroska") as out:
        video = out.add_stream("ffv1", rate=FPS)
        video.width, video.height, video.pix_fmt = *size, "yuv444p"
        video.time_base = video.codec_context.time_base = Fraction(1, TICKS_HZ // 30)
        audio = None if sound is None else out.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        for i, time_s in enumerate(times_s):
            picture = grey(time_s, size) if pictures is None else pictures[i]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time_s * TICKS_HZ / 30), Fraction(1, TICKS_HZ // 30)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        shift_s = sound_at_s
        for i in range(0, 0 if sound is None else len(sound), 320):
            assert audio is not None
            assert sound is not None
            shift_s += (breaks or {}).get(i // 320, 0.0)
            block = (np.clip(sound[i : i + 320], -1, 1) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
            frame.rate, frame.time_base = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
            frame.pts = i + round(shift_s * SAMPLE_RATE_HZ)
            out.mux(audio.encode(frame))
        if audio is not None:
            out.mux(audio.encode(None))
    return path


def even(seconds: float, rate: float = FPS) -> list[float]:
    return [i / rate for i in range(int(seconds * rate))]


def played(source: FileSource) -> list[Packet]:
    source.start(0.0)
    packets = []
    while (packet := source.read(len(packets))) is not None:
        packets.append(packet)
    source.close()
    return packets


def noise(seconds: float, seed: int = 0) -> NDArray[np.float32]:
    return (0.4 * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE_HZ))).clip(-1, 1).astype("f4")


def test_a_truncated_recording_plays_to_its_last_good_picture_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    media.write_video(tmp_path / "whole.mp4", (rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(60)))
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: 2 * len(whole) // 3])
    source = FileSource(tmp_path / "cut.mp4", SPEC)
    packets = played(source)
    assert 20 < len(packets) < 59
    assert all(p.picture is not None for p in packets)
    assert "played to its last good one" in source.note


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound at all" * 50])
def test_a_sound_file_that_is_empty_or_broken_leaves_the_pictures_and_a_note(tmp_path: Path, content: bytes) -> None:
    path = film(tmp_path / "a.mkv", even(0.5))
    (tmp_path / "a.wav").write_bytes(content)
    source = FileSource(path, SPEC, audio=tmp_path / "a.wav")
    packets = played(source)
    assert len(packets) == 15
    assert all(p.flags == ("no_sound",) and not p.audio.any() for p in packets)
    assert "a.wav" in source.note
    assert "without" in source.note
    assert source.counts.frames_without_sound == 15


def test_a_recording_without_a_sound_track_says_so(tmp_path: Path) -> None:
    source = FileSource(film(tmp_path / "a.mkv", even(0.5)), SPEC)
    assert source.note.endswith("a.mkv: holds no sound; played without")
    source.close()


def test_silence_that_was_recorded_is_sound_and_not_a_fault(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", even(0.5), sound=np.zeros(8000, np.float32))
    source = FileSource(path, SPEC)
    packets = played(source)
    assert source.note == ""
    assert all(p.flags == () for p in packets)
    seen = Frontend(SPEC).pack(packets[5].picture, None, packets[5].audio)
    assert seen.present[1] == 0, "the student is told that there is nothing to hear"


@pytest.mark.parametrize(("extra_s", "word"), [(0.3, "longer"), (-0.3, "shorter")])
def test_sound_that_is_longer_or_shorter_than_the_pictures_is_told_and_played_in_step(
    tmp_path: Path, extra_s: float, word: str
) -> None:
    sound = noise(1.0 + extra_s)
    path = film(tmp_path / "a.mkv", even(1.0))
    media.write_wav(tmp_path / "a.wav", sound)
    source = FileSource(path, SPEC, audio=tmp_path / "a.wav")
    packets = played(source)
    assert len(packets) == 30
    assert f"its sound is 0.30 s {word} than the pictures" in source.note
    padded = np.concatenate([np.zeros(800, np.float32), sound, np.zeros(16000, np.float32)])
    for packet in packets:
        stop = audio_end(packet.frame)
        np.testing.assert_allclose(packet.audio, padded[stop : stop + 800], atol=1e-3)
    assert ("no_sound" in packets[-1].flags) == (extra_s < 0)


def test_sound_that_starts_2_43_s_late_is_heard_when_its_stamps_say(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", even(3.5), sound=noise(1.07), sound_at_s=2.43)
    packets = played(FileSource(path, SPEC))
    first = next(p.frame for p in packets if p.audio.any())
    assert first == int(2.43 * FPS)
    assert int(np.flatnonzero(packets[first].audio)[0]) == pytest.approx(
        800 - (audio_end(first) - 2.43 * SAMPLE_RATE_HZ), abs=20
    )


@pytest.mark.parametrize("rate", [22.13, 23.976, 25, 29.97, 50, 60])
def test_any_rate_meets_the_30_hz_grid_by_time(tmp_path: Path, rate: float) -> None:
    times_s = even(0.95, rate)
    source = FileSource(film(tmp_path / "a.mkv", times_s), SPEC)
    packets = played(source)
    assert len(packets) == pytest.approx(0.95 * FPS, abs=2)
    for packet in packets:
        latest = max(t for t in times_s if round(t, 3) <= (packet.frame + 0.5) / FPS + 1e-6)  # Matroska counts in ms
        assert moment(packet) == pytest.approx(latest * FPS, abs=0.3)
    held = sum("held_picture" in p.flags for p in packets)
    assert source.counts.pictures_held == held == pytest.approx(max(0, FPS - rate) * 0.95, abs=2)


def test_a_variable_rate_with_lost_and_doubled_pictures_keeps_its_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    times_s = sorted(rng.choice(np.arange(0, 0.95, 1 / 90), 40, replace=False).tolist())
    times_s[0] = 0.0
    source = FileSource(film(tmp_path / "a.mkv", times_s), SPEC)
    packets = played(source)
    for packet in packets:
        latest = max(t for t in times_s if t <= (packet.frame + 0.5) / FPS + 1e-3)
        assert moment(packet) == pytest.approx(latest * FPS, abs=0.4)
    gaps = [t for t in range(len(packets)) if not any((t - 0.5) / FPS < s <= (t + 0.5) / FPS + 1e-3 for s in times_s)]
    assert [p.frame for p in packets if "held_picture" in p.flags] == gaps


def test_a_pause_of_the_camera_in_the_file_holds_the_last_picture_for_as_long(tmp_path: Path) -> None:
    times_s = [t for t in even(0.95) if not 0.3 < t < 0.6]
    packets = played(FileSource(film(tmp_path / "a.mkv", times_s), SPEC))
    held = [p.frame for p in packets if "held_picture" in p.flags]
    assert held == list(range(10, 18))


def test_a_portrait_recording_and_a_tiny_one_become_a_crop_of_the_right_size(tmp_path: Path) -> None:
    for size in ((1080, 1920), (32, 64)):
        path = film(tmp_path / f"{size[0]}.mkv", even(0.1), size=size)
        packets = played(FileSource(path, SPEC))
        assert packets[0].picture is not None
        assert packets[0].picture.shape == (size[1], size[0], 3)
        seen = Frontend(SPEC).step(packets[0].picture, packets[0].audio)
        assert seen.frame.shape == (SPEC.crop_px, SPEC.crop_px, 3)
        assert seen.present[0] == 0, "there is no face in grey"


def test_black_white_and_frozen_pictures_pass_as_they_are_and_hold_no_face(tmp_path: Path) -> None:
    levels = [0] * 10 + [255] * 10 + [90] * 10
    pictures = [np.full((48, 64, 3), level, np.uint8) for level in levels]
    packets = played(FileSource(film(tmp_path / "a.mkv", even(1.0), pictures=pictures), SPEC))
    front = Frontend(SPEC)
    for packet, level in zip(packets, levels, strict=True):
        assert packet.picture is not None
        assert packet.picture.mean() == pytest.approx(level, abs=3)
        assert front.look(packet.picture) == (None, False)
        assert "held_picture" not in packet.flags, "a frozen picture that keeps coming is not a missing one"


def test_a_jump_of_the_sounds_clock_leaves_silence_in_its_place_and_step_after_it(tmp_path: Path) -> None:
    sound = noise(2.0)
    path = film(tmp_path / "a.mkv", even(2.5), sound=sound, breaks={50: 0.5})
    packets = played(FileSource(path, SPEC))
    whole = np.concatenate([sound[:16000], np.zeros(8000, np.float32), sound[16000:]])
    for packet in packets[2:74]:
        stop = audio_end(packet.frame)
        np.testing.assert_allclose(packet.audio, whole[stop - 800 : stop], atol=2e-3)


def test_a_drift_between_sound_and_pictures_stays_within_a_frame(tmp_path: Path) -> None:
    """The sound's stamps run 0.5 % slow: 20 ms over four seconds, less than what counts as a dropout."""
    path = film(tmp_path / "a.mkv", even(4.0), sound=noise(4.0), breaks=dict.fromkeys(range(200), 1e-4))
    packets = played(FileSource(path, SPEC))
    assert len(packets) == 120
    assert all(p.audio.any() for p in packets)


def test_a_loop_that_skips_frames_counts_the_pictures_it_never_showed(tmp_path: Path) -> None:
    source = FileSource(film(tmp_path / "a.mkv", even(0.95)), SPEC)
    source.start(0.0)
    for frame in (0, 5, 20):
        packet = source.read(frame)
        assert packet is not None
        assert packet.frame == frame
        assert "held_picture" not in packet.flags
    assert source.counts.pictures == 21
    assert source.counts.pictures_dropped == 18
    source.close()


def test_sound_alone_is_replayed_to_its_end(tmp_path: Path) -> None:
    media.write_wav(tmp_path / "a.wav", noise(0.5))
    source = FileSource(None, SPEC, audio=tmp_path / "a.wav")
    packets = played(source)
    assert len(packets) == 15
    assert all(p.picture is None and p.flags == ("no_picture",) for p in packets)
    assert source.counts.frames_without_picture == 15
    assert source.note == ""


def test_nothing_at_all_to_replay_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    with pytest.raises(media.MediaError, match=r"a\.wav: holds no sound; give a sound file"):
        FileSource(None, SPEC, audio=tmp_path / "a.wav")
    with pytest.raises(media.MediaError, match="nothing to replay"):
        FileSource(None, SPEC)
