"""Frames, samples and seconds convert exactly, for hours."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyad import clock

FRAMES = st.integers(0, 30 * 3600 * 24)


@given(FRAMES)
def test_samples_before_a_frame_are_the_exact_quotient_rounded_down(frame: int) -> None:
    assert clock.samples_until(frame) == Fraction(frame * 16000, 30).__floor__()


def test_audio_blocks_are_533_533_534_and_never_drift() -> None:
    edges = [clock.samples_until(t) for t in range(30 * 3600 + 1)]
    assert [b - a for a, b in pairwise(edges[:7])] == [533, 533, 534, 533, 533, 534]
    assert edges[-1] == 16000 * 3600


@given(FRAMES)
def test_a_frames_sound_ends_where_the_next_frame_begins(frame: int) -> None:
    assert clock.audio_end(frame) == clock.samples_until(frame + 1)
    assert Fraction(clock.audio_end(frame), 16000) <= Fraction(frame + 1, 30)


@given(FRAMES, st.floats(0, 0.999))
def test_a_time_inside_a_frame_belongs_to_that_frame(frame: int, share: float) -> None:
    assert clock.frame_at((frame + share) / 30) == frame


@pytest.mark.parametrize(
    ("duration_s", "frames"), [(0.0, 0), (1 / 30, 1), (0.0332, 1), (0.03, 0), (1.0, 30), (4.9, 147), (4.933, 148)]
)
def test_only_whole_frames_count_but_milliseconds_of_rounding_do_not(duration_s: float, frames: int) -> None:
    assert clock.frames_in(duration_s) == frames


def test_the_fake_clock_moves_only_when_told_and_never_backwards() -> None:
    fake = clock.FakeClock(5.0)
    fake.sleep_until(4.0)
    assert fake.now_s() == 5.0
    fake.sleep_until(6.5)
    fake.advance(0.5)
    assert fake.now_s() == 7.0
    with pytest.raises(ValueError, match="never runs backwards"):
        fake.advance(-1.0)


def test_the_monotonic_clock_returns_at_once_from_a_past_deadline() -> None:
    wall = clock.MonotonicClock()
    before_s = wall.now_s()
    wall.sleep_until(before_s - 10.0)
    assert wall.now_s() >= before_s
