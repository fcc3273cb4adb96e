"""Training and the loop get the same bytes; the sound never runs ahead; what is absent is said to be absent."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dyad import clock, media
from dyad.session import Session
from dyad.synthetic.face import FaceArtist
from dyad.synthetic.identity import Identity
from student import front_cache
from student.frontend import Frontend, audio_window, crop_face, process_session
from student.spec import StudentSpec

SPEC = StudentSpec(crop_px=32)
FRAMES = 39


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A drawn speaker who moves, at 25 frames a second; sound that starts after a second and stops early."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(3)
    artist = FaceArtist(Identity.draw(rng, 224), rng)
    moves = [np.array([0.3 * np.sin(t / 5), 0.1, 0, 0, 0, 0], np.float32) for t in range(33)]
    units = [np.full(17, 0.5 + 0.5 * np.sin(t / 3), np.float32) for t in range(33)]
    pictures = [artist.draw(u, m, t) for t, (u, m) in enumerate(zip(units, moves, strict=True))]
    media.write_video(folder / "speaker.mp4", pictures, fps=25)
    sound = rng.normal(0, 0.1, clock.samples_until(36)).astype(np.float32)
    sound[:5000] = 0
    media.write_wav(folder / "speaker.wav", sound)
    return folder / "speaker.mp4", folder / "speaker.wav"


def live(video: Path, sound: NDArray[np.float32]) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """As the loop does it: look, then pack, on a sound buffer that holds nothing of the future."""
    front, frames, present = Frontend(SPEC), [], []
    for t, picture in media.iter_grid_frames(video):
        heard = sound[: clock.audio_end(t)].copy()
        box, _ = front.look(picture)
        seen = front.pack(picture, box, audio_window(heard, t, SPEC))
        np.testing.assert_array_equal(seen.audio, audio_window(sound, t, SPEC))
        frames.append(seen.frame)
        present.append(seen.present)
    return frames, present


def test_training_and_the_loop_get_the_same_bytes(recording: tuple[Path, Path]) -> None:
    frames, sound, present = process_session(*recording, SPEC)
    live_frames, live_present = live(recording[0], media.read_audio(recording[1]))
    assert frames.shape == (FRAMES, 32, 32, 3)
    assert frames.dtype == np.uint8
    assert frames.tobytes() == np.stack(live_frames).tobytes()
    assert present.tobytes() == np.stack(live_present).tobytes()
    assert present[:, 0].mean() > 0.9
    assert present[:9, 1].sum() == 0  # 5000 samples of silence cover the first nine frames
    assert present[10:36, 1].all()
    assert not present[37:, 1].any()
    assert len(sound) == clock.samples_until(36)


def test_a_recording_processed_twice_gives_the_same_bytes(recording: tuple[Path, Path]) -> None:
    first, second = process_session(*recording, SPEC), process_session(*recording, SPEC)
    for a, b in zip(first, second, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("frame", [0, 1, 2, 29, 30, 31, 1000, 107_999])
def test_the_audio_window_ends_with_its_frame_to_the_sample(frame: int) -> None:
    first = max(0, frame - 3)
    offset = clock.samples_until(first)
    numbers = np.zeros(clock.audio_end(frame) + 700, np.float32)
    numbers[offset:] = np.arange(1, len(numbers) - offset + 1)
    window = audio_window(numbers, frame, SPEC)
    assert window.shape == (800,)
    assert window[-1] == (frame + 1) * 16000 // 30 - offset
    held = min(800, clock.audio_end(frame))
    np.testing.assert_array_equal(window[800 - held :], numbers[clock.audio_end(frame) - held : clock.audio_end(frame)])
    assert not window[: 800 - held].any()


def test_the_audio_window_after_the_end_of_the_sound_holds_zeros() -> None:
    sound = np.ones(1000, np.float32)
    assert audio_window(sound, 1, SPEC).sum() == 800 - (1066 - 1000)
    assert not audio_window(sound, 50, SPEC).any()
    assert not audio_window(sound[:0], 0, SPEC).any()


@pytest.mark.parametrize(
    ("sound", "heard"),
    [(0.0, 0), (1e-6, 0), (1e-3, 1), (1.0, 1), (float("nan"), 0), (float("inf"), 0)],
)
def test_silence_and_broken_sound_are_flagged_as_no_sound(sound: float, heard: int) -> None:
    window = np.zeros(800, np.float32)
    window[400] = sound
    seen = Frontend(SPEC).step(np.zeros((240, 320, 3), np.uint8), window)
    assert seen.present.tolist() == [0, heard]


def test_broken_sound_never_reaches_the_student() -> None:
    window = np.full(800, 0.1, np.float32)
    window[13] = np.nan
    seen = Frontend(SPEC).step(np.zeros((240, 320, 3), np.uint8), window)
    assert not seen.audio.any()
    assert np.isnan(window[13])  # the caller's own array stays as it is


def test_a_picture_without_a_face_is_never_passed_off_as_one() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    seen = Frontend(SPEC).step(picture, np.zeros(800, np.float32))
    assert seen.box is None
    assert seen.present[0] == 0
    want = cv2.resize(picture[:, 40:280], (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(seen.frame, want)


def test_a_failed_camera_gives_a_blank_crop_and_no_face() -> None:
    seen = Frontend(SPEC).step(None, np.full(800, 0.1, np.float32))
    assert not seen.frame.any()
    assert seen.present.tolist() == [0, 1]


def test_the_crop_is_square_centred_on_the_face_and_holds_the_chin() -> None:
    rows, columns = np.mgrid[0:200, 0:200]
    picture = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    crop = crop_face(picture, (80.0, 60.0, 120.0, 100.0), 50)
    assert crop.shape == (50, 50, 3)
    top, bottom = crop[0, 25, 0], crop[-1, 25, 0]
    left, right = crop[25, 0, 1], crop[25, -1, 1]
    assert abs((int(left) + int(right)) / 2 - 100) <= 1
    assert top < 60
    assert bottom > 100 + 0.1 * 40
    assert abs(int(bottom) - int(top) - (int(right) - int(left))) <= 1


@pytest.mark.parametrize("box", [(-30.0, -30.0, 60.0, 60.0), (150.0, 100.0, 230.0, 180.0), (0.0, 0.0, 200.0, 160.0)])
def test_a_crop_that_leaves_the_picture_repeats_its_edge(box: tuple[float, float, float, float]) -> None:
    picture = np.full((160, 200, 3), 77, np.uint8)
    crop = crop_face(picture, box, 32)
    assert crop.shape == (32, 32, 3)
    assert (crop == 77).all()


def test_a_crop_keeps_the_mean_of_fine_patterns_instead_of_aliasing() -> None:
    board = (255 * (np.indices((512, 512)).sum(axis=0) % 2)).astype(np.uint8)
    crop = crop_face(np.repeat(board[:, :, None], 3, axis=2), None, 32)
    assert np.abs(crop.astype(int) - 127).max() <= 1


def session(name: str, video: Path, sound: Path) -> Session:
    """A session without labels: the front end needs none."""
    none = np.full((FRAMES, 1), np.nan, np.float32)
    return Session(
        id=name, speaker_video_path=video, speaker_audio_path=sound, listener_video_path=None, listener_audio_path=None,
        au_names=("AU1",), prob=none, act=none, fps=30.0, duration_s=FRAMES / 30, n_frames=FRAMES,
    )  # fmt: skip


def test_one_damaged_session_is_named_and_the_others_are_cached(tmp_path: Path, recording: tuple[Path, Path]) -> None:
    (tmp_path / "damaged.mp4").write_bytes(recording[0].read_bytes()[:300])
    sessions = [
        session("good", *recording),
        session("gone", tmp_path / "gone.mp4", recording[1]),
        session("damaged", tmp_path / "damaged.mp4", recording[1]),
    ]
    reasons = front_cache.ensure_all(tmp_path, sessions, SPEC, workers=1)
    assert set(reasons) == {"gone", "damaged"}
    assert "gone.mp4" in reasons["gone"]
    assert "damaged.mp4" in reasons["damaged"]
    cached = front_cache.load(tmp_path, "good", SPEC)
    want = process_session(*recording, SPEC)
    for a, b in zip((cached.frames, cached.audio, cached.present), want, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="gone: session not decoded"):
        front_cache.load(tmp_path, "gone", SPEC)


def test_a_session_whose_media_changed_is_decoded_again(tmp_path: Path, recording: tuple[Path, Path]) -> None:
    sound = tmp_path / "s.wav"
    sound.write_bytes(recording[1].read_bytes())
    one = session("one", recording[0], sound)
    folder = front_cache.folder_of(tmp_path, SPEC)
    assert front_cache.ensure(folder, one, SPEC) is None
    stamp = (folder / "one" / "audio.npy").stat().st_mtime_ns
    assert front_cache.ensure(folder, one, SPEC) is None
    assert (folder / "one" / "audio.npy").stat().st_mtime_ns == stamp
    media.write_wav(sound, np.full(16000, 0.2, np.float32))
    assert front_cache.ensure(folder, one, SPEC) is None
    assert len(front_cache.load(tmp_path, "one", SPEC).audio) == 16000
