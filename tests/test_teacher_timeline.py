"""Token times against brute force, windows that cover a session, and tapers that add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyad import clock
from teacher import timeline
from teacher.windows import SpeakerMedia, WindowSpec, cut, starts


def _brute_force(slots_s: list[float], wanted_s: float) -> dict[int, float]:
    """Linear interpolation between two neighbouring slots, by search."""
    if wanted_s <= slots_s[0]:
        return {0: 1.0}
    if wanted_s >= slots_s[-1]:
        return {len(slots_s) - 1: 1.0}
    for k in range(len(slots_s) - 1):
        if slots_s[k] <= wanted_s <= slots_s[k + 1]:
            right = (wanted_s - slots_s[k]) / (slots_s[k + 1] - slots_s[k])
            return {k: 1 - right, k + 1: right}
    raise AssertionError(wanted_s)


@settings(max_examples=30, deadline=None)
@given(seconds=st.integers(1, 12), video_fps=st.sampled_from([2, 3, 5, 6, 10, 15, 30]))
def test_each_frame_reads_the_slots_around_its_centre(seconds: int, video_fps: int) -> None:
    frames = seconds * clock.FPS
    grids = max(seconds * video_fps // 2, 1)
    video = [(2 * g / video_fps + (2 * g + 2) / video_fps) / 2 for g in range(grids)]
    audio = [(0.04 * k + 0.04 * (k + 1)) / 2 for k in range(25 * seconds)]
    made = (timeline.video_centres_s(grids, video_fps), timeline.audio_centres_s(25 * seconds))
    for slots, centres in zip((video, audio), made, strict=True):
        weights = timeline.interpolation(centres, timeline.frame_centres_s(frames))
        for t in range(frames):
            wanted = np.zeros(len(slots))
            for k, share in _brute_force(slots, (t + 0.5) / 30).items():
                wanted[k] = share
            np.testing.assert_allclose(weights[t], wanted, atol=1e-5)


def test_a_ramp_over_time_is_read_out_as_the_same_ramp() -> None:
    slots = timeline.audio_centres_s(250)
    wanted = timeline.frame_centres_s(300)
    read = timeline.interpolation(slots, wanted) @ slots.astype(np.float32)
    inside = (wanted >= slots[0]) & (wanted <= slots[-1])
    np.testing.assert_allclose(read[inside], wanted[inside], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(n_frames=st.integers(1, 2400), hop=st.integers(1, 400), fps=st.sampled_from([3, 5, 15]))
def test_windows_start_on_a_grid_and_leave_no_frame_out(n_frames: int, hop: int, fps: int) -> None:
    spec = WindowSpec(frames=240 if fps == 3 else 120, video_fps=fps)
    grid = clock.FPS // fps * 2
    begins = starts(n_frames, spec, hop)
    seen = np.zeros(n_frames + spec.frames, bool)
    for start in begins:
        seen[start : start + spec.frames] = True
    assert begins == sorted(set(begins))
    assert all(start % grid == 0 for start in begins)
    assert seen[:n_frames].all()


def test_a_window_holds_the_pictures_and_samples_of_its_own_time() -> None:
    spec = WindowSpec(frames=60, video_fps=5, size_px=28)
    pictures = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 28, 28, 3), np.uint8)
    sound = np.arange(8 * 16000, dtype=np.float32)
    seen, heard = cut(SpeakerMedia(pictures, sound, 240), 36, spec)
    assert seen[:, 0, 0, 0].tolist() == list(range(6, 16))
    assert heard[0] == clock.samples_until(36)
    assert len(heard) == clock.samples_until(60)


def test_a_session_shorter_than_a_window_is_held_and_silent_at_its_end() -> None:
    spec = WindowSpec(frames=60, video_fps=5, size_px=28)
    pictures = np.full((3, 28, 28, 3), 7, np.uint8)
    pictures[2] = 9
    seen, heard = cut(SpeakerMedia(pictures, np.ones(8000, np.float32), 15), 0, spec)
    assert seen[:, 0, 0, 0].tolist() == [7, 7, *[9] * 8]
    assert heard.sum() == 8000


@pytest.mark.parametrize("bad", [{"frames": 100}, {"video_fps": 7}, {"size_px": 100}, {"frames": 30, "video_fps": 3}])
def test_a_window_that_the_grid_cannot_hold_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"multiple of 28|whole seconds"):
        WindowSpec(**bad)
