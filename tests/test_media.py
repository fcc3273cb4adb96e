"""Pictures and sound reach the 30 Hz grid by presentation time, from any rate and from damaged files.

Each picture of the test clips carries its number as eight black or white bars, so that the mapping can be compared
with a brute-force search over all presentation times.
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dyad import media

SIZE = 64


def numbered(number: int) -> media.Picture:
    bits = np.array([(number >> b) & 1 for b in range(8)], np.uint8)
    return np.repeat(np.repeat(bits * 255, SIZE // 8)[None, :, None], SIZE, 0).repeat(3, 2)


def number_of(picture: media.Picture) -> int:
    bars = picture[:, :, 1].astype(float).mean(0).reshape(8, -1).mean(1)
    return int(sum(int(bar > 127) << b for b, bar in enumerate(bars)))


def numbers(path: Path) -> list[int]:
    return [number_of(p) for _, p in media.iter_grid_frames(path)]


def oracle(times_s: Sequence[Fraction]) -> list[int]:
    """For every grid frame up to the first that shows the last picture: the latest picture shown by (t + ½)/30."""
    shown: list[int] = []
    while not shown or shown[-1] != len(times_s) - 1:
        until = Fraction(2 * len(shown) + 1, 60)
        shown.append(max(i for i, time_s in enumerate(times_s) if time_s <= until))
    return shown


def tone(seconds: float, onset_s: float) -> media.Sound:
    """Silence, then 400 Hz from `onset_s`."""
    t = np.arange(round(seconds * 16000)) / 16000
    return np.where(t >= onset_s, 0.5 * np.sin(2 * np.pi * 400 * (t - onset_s)), 0).astype(np.float32)


def onset_s(sound: media.Sound) -> float:
    return float(np.argmax(np.abs(sound) > 0.1)) / 16000


@pytest.mark.parametrize(
    "rate",
    [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60), Fraction(30), Fraction(12), 22.13],
)
def test_every_rate_meets_the_grid_as_a_brute_force_search_says(tmp_path: Path, rate: Fraction | float) -> None:
    with media.VideoWriter(tmp_path / "a.mp4", (SIZE, SIZE), fps=rate) as writer:
        for i in range(100):
            writer.write(numbered(i))
    exact = Fraction(rate).limit_denominator(1001)
    assert numbers(tmp_path / "a.mp4") == oracle([i / exact for i in range(100)])


def test_a_variable_rate_meets_the_grid_by_its_time_stamps(tmp_path: Path) -> None:
    steps = np.random.default_rng(3).integers(1, 25, 80)  # 8 ms to 0.2 s between pictures
    pts = np.concatenate([[0], np.cumsum(steps)])
    with media.VideoWriter(tmp_path / "a.mp4", (SIZE, SIZE), fps=120) as writer:
        for i, p in enumerate(pts):
            writer.write(numbered(i), int(p))
    assert numbers(tmp_path / "a.mp4") == oracle([Fraction(int(p), 120) for p in pts])


def test_no_picture_is_shown_before_its_own_frame_has_begun_to_end(tmp_path: Path) -> None:
    with media.VideoWriter(tmp_path / "a.mp4", (SIZE, SIZE), fps=60) as writer:
        for i in range(120):
            writer.write(numbered(i))
    for t, picture in media.iter_grid_frames(tmp_path / "a.mp4"):
        assert Fraction(number_of(picture), 60) < Fraction(t + 1, 30)


def mux(path: Path, codec: str, rate: int, pictures: int, sound_late_s: float | None = None, **options: str) -> None:
    """A clip by PyAV alone: any container and codec, sound that may start late."""
    with av.open(str(path), "w", options=options) as out:
        video: Any = out.add_stream(codec, rate=rate)
        video.width = video.height = SIZE
        video.pix_fmt, video.bit_rate = "yuv420p", 4_000_000
        sound: Any = None
        if sound_late_s is not None:
            sound = out.add_stream("aac", rate=16000, layout="mono")
        for i in range(pictures):
            out.mux(video.encode(av.VideoFrame.from_ndarray(numbered(i), format="rgb24")))
        out.mux(video.encode(None))
        if sound is not None and sound_late_s is not None:
            samples, late = tone(2.0, 0.5), round(sound_late_s * 16000)
            for i in range(0, len(samples), 1024):
                frame = av.AudioFrame.from_ndarray(samples[None, i : i + 1024], format="fltp", layout="mono")
                frame.rate, frame.pts, frame.time_base = 16000, late + i, Fraction(1, 16000)
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))


def test_sound_that_starts_late_is_placed_by_its_time_stamps(tmp_path: Path) -> None:
    mux(tmp_path / "a.mkv", "libx264", 30, 150, sound_late_s=2.43)
    assert media.probe(tmp_path / "a.mkv").audio_offset_s == pytest.approx(2.43, abs=0.07)
    assert onset_s(media.read_audio(tmp_path / "a.mkv")) == pytest.approx(2.93, abs=0.005)


def test_sound_that_drops_out_is_not_heard_early_afterwards(tmp_path: Path) -> None:
    samples = (tone(3.0, 2.0) * 32767).astype(np.int16)[None]
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream: Any = out.add_stream("pcm_s16le", rate=16000, layout="mono")
        for i in (*range(0, 16000, 1000), *range(32000, 48000, 1000)):  # the second second was never recorded
            frame = av.AudioFrame.from_ndarray(samples[:, i : i + 1000], format="s16", layout="mono")
            frame.rate, frame.pts, frame.time_base = 16000, i, Fraction(1, 16000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    sound = media.read_audio(tmp_path / "a.mkv")
    assert onset_s(sound) == pytest.approx(2.0, abs=0.005)
    assert len(sound) == pytest.approx(48000, abs=50)


def test_a_tone_written_with_a_clip_is_read_back_at_its_time(tmp_path: Path) -> None:
    pictures = [numbered(i) for i in range(60)]
    media.write_video(tmp_path / "a.mp4", pictures, audio=tone(2.0, 1.0))
    sound = media.read_audio(tmp_path / "a.mp4")
    assert onset_s(sound) == pytest.approx(1.0, abs=0.005)
    assert len(sound) == pytest.approx(32000, abs=1100)  # AAC pads to whole blocks
    assert numbers(tmp_path / "a.mp4") == list(range(60))


def test_an_mpeg1_programme_stream_starts_at_time_zero(tmp_path: Path) -> None:
    mux(tmp_path / "a.mpg", "mpeg1video", 25, 75)
    wanted = oracle([Fraction(i, 25) for i in range(75)])
    assert numbers(tmp_path / "a.mpg") == wanted


def test_a_clip_cut_off_plays_to_its_last_good_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (90, SIZE, SIZE, 3), dtype=np.uint8)  # enough bytes to cut through
    media.write_video(tmp_path / "whole.mp4", [np.maximum(numbered(i), noise[i]) for i in range(90)], crf=15)
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    played = numbers(tmp_path / "cut.mp4")
    assert 20 < len(played) < 85
    assert played[:-2] == list(range(90))[: len(played) - 2]
    assert media.probe(tmp_path / "cut.mp4").video_duration_s == pytest.approx(3.0, abs=0.01)


def test_a_clip_without_its_index_is_refused_by_name_with_a_remedy(tmp_path: Path) -> None:
    mux(tmp_path / "whole.mp4", "libx264", 30, 30)  # the index comes last
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        media.MediaError, match=r"cut\.mp4: not a readable .*\(its index.*was cut off\); record or copy it"
    ):
        media.probe(tmp_path / "cut.mp4")
    (tmp_path / "junk.mp4").write_bytes(b"no video " * 99)
    with pytest.raises(
        media.MediaError, match=r"junk\.mp4: not a readable .*\(invalid data found.*\); record or copy it"
    ):
        media.probe(tmp_path / "junk.mp4")


@pytest.mark.parametrize("read", [media.probe, media.read_audio, media.read_video])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, read: Any) -> None:
    with pytest.raises(media.MediaError, match=r"gone\.mp4: no such file"):
        read(tmp_path / "gone.mp4")


@pytest.mark.parametrize("content", [b"not a clip at all" * 20, b"\0" * 4096])
def test_a_file_that_is_no_media_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(media.MediaError, match=r"a\.mp4"):
        media.read_video(tmp_path / "a.mp4")


def test_a_clip_without_sound_gives_no_samples_and_says_so(tmp_path: Path) -> None:
    media.write_video(tmp_path / "a.mp4", [numbered(i) for i in range(5)])
    assert len(media.read_audio(tmp_path / "a.mp4")) == 0
    assert not media.probe(tmp_path / "a.mp4").has_audio


def test_an_empty_recording_gives_no_samples_instead_of_an_error(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").touch()
    media.write_wav(tmp_path / "header.wav", np.zeros(0, np.float32))
    assert len(media.read_audio(tmp_path / "zero.wav")) == len(media.read_audio(tmp_path / "header.wav")) == 0


def test_sound_without_pictures_is_refused_as_a_video(tmp_path: Path) -> None:
    media.write_wav(tmp_path / "a.wav", tone(0.1, 0.0))
    with pytest.raises(media.MediaError, match="holds no pictures"):
        media.read_video(tmp_path / "a.wav")


def test_a_wav_is_read_back_to_the_sample_and_stereo_is_mixed(tmp_path: Path) -> None:
    import wave

    sound = tone(0.5, 0.1)
    media.write_wav(tmp_path / "a.wav", sound)
    np.testing.assert_allclose(media.read_audio(tmp_path / "a.wav"), sound, atol=1e-4)
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((2, 2, 16000, 0, "NONE", ""))
        left_right = np.stack([sound, np.zeros_like(sound)], 1)
        file.writeframes((left_right * 32767).astype("<i2").tobytes())
    np.testing.assert_allclose(media.read_audio(tmp_path / "s.wav"), sound / 2, atol=1e-3)


def test_another_sample_rate_keeps_length_and_onset(tmp_path: Path) -> None:
    media.write_wav(tmp_path / "a.wav", tone(2.0, 1.0), rate_hz=16000)
    at_44100 = media.read_audio(tmp_path / "a.wav", 44100)
    assert abs(len(at_44100) - 88200) < 100
    media.write_wav(tmp_path / "b.wav", at_44100, rate_hz=44100)
    back = media.read_audio(tmp_path / "b.wav")
    assert onset_s(back) == pytest.approx(1.0, abs=0.002)
    assert abs(len(back) - 32000) < 50


def turn_by_display_matrix(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a rotation into the first track header of an MP4, as a phone does."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    entries = [m << 16 for m in matrix[:8]] + [1 << 30]
    struct.pack_into(">9i", data, header + 40, *entries)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("matrix", "turns_clockwise"),
    [((0, 1, 0, -1, 0, 0, 0, 0), 1), ((-1, 0, 0, 0, -1, 0, 0, 0), 2), ((0, -1, 0, 1, 0, 0, 0, 0), 3)],
)
def test_a_phones_rotation_is_undone_before_anyone_looks(
    tmp_path: Path, matrix: tuple[int, ...], turns_clockwise: int
) -> None:
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:16, :32] = 255  # a mark in the upper left corner
    media.write_video(tmp_path / "a.mp4", [picture] * 3)
    turn_by_display_matrix(tmp_path / "a.mp4", matrix)
    seen = media.read_video(tmp_path / "a.mp4")[0]
    np.testing.assert_allclose(seen.astype(float), np.rot90(picture, -turns_clockwise).astype(float), atol=60)


def test_pictures_come_one_by_one_and_reading_may_stop_early(tmp_path: Path) -> None:
    media.write_video(tmp_path / "a.mp4", [numbered(i) for i in range(40)])
    frames = media.iter_grid_frames(tmp_path / "a.mp4")
    assert [number_of(next(frames)[1]) for _ in range(3)] == [0, 1, 2]
    assert media.read_video(tmp_path / "a.mp4", max_frames=7).shape == (7, SIZE, SIZE, 3)


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        media.write_video(tmp_path / name, [numbered(i) for i in range(20)], audio=tone(0.7, 0.1))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_odd_size_and_an_empty_clip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be even, got 63x64"):
        media.VideoWriter(tmp_path / "a.mp4", (63, 64))
    with pytest.raises(ValueError, match="no picture to write"):
        media.write_video(tmp_path / "a.mp4", [])


def test_real_clips_of_odd_rates_and_codecs_keep_their_length(real_data: Path) -> None:
    lengths = {"grid_bbaf2n.mpg": 3.0, "videoretalking_1.mp4": 6.1, "videoretalking_3.mp4": 5.0}
    for name, seconds in lengths.items():
        frames = sum(1 for _ in media.iter_grid_frames(real_data / "speakers" / name))
        assert frames / 30 == pytest.approx(seconds, abs=0.07)
        assert len(media.read_audio(real_data / "speakers" / name)) / 16000 == pytest.approx(seconds, abs=0.1)


def test_a_real_portrait_clip_in_hevc_stands_upright(real_data: Path) -> None:
    assert next(media.iter_grid_frames(real_data / "speakers" / "latentsync_demo2.mp4"))[1].shape == (1920, 1080, 3)


def test_a_file_that_may_not_be_read_is_refused_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "film.mp4")

    (tmp_path / "film.mp4").write_bytes(b"0" * 64)
    monkeypatch.setattr(media.av, "open", denied)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(media.MediaError, match=r"film\.mp4: not a readable .*permission denied"):
        media.probe(tmp_path / "film.mp4")
