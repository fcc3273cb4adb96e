"""How boldly a plan is guessed on is learnt from its rows: straight where they are clean, calm where they jitter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from deploy.motion import foresight
from deploy.motion.foresight import JITTERS, Foresight
from dyad.clock import FRAME_S

ROWS = 9
PAST_S = FRAME_S * np.arange(ROWS, dtype=float)
BOLDEST, CALMEST = JITTERS[0], JITTERS[-1]
Rows = NDArray[np.float64]
SHARES = arrays(float, (ROWS, 3), elements=st.floats(-1, 1))


def sway(at_s: Rows) -> Rows:
    """[T, 2] a face's movement."""
    return np.stack([0.4 * np.sin(5 * at_s), 0.3 * np.sin(3 * at_s + 1)], axis=1)


def calmness(learnt: Foresight, plans: int, noise: tuple[float, float], from_s: float = 0.0) -> Rows:
    """[2] where the guesses of the last 20 plans lie, per channel: 0 as the boldest, 1 as the calmest."""
    rng, apart = np.random.default_rng(0), []
    for plan in range(plans):
        rows = sway(from_s + plan * FRAME_S + PAST_S) + np.array(noise) * rng.standard_normal((ROWS, 2))
        guess, bold, calm = (
            learnt.beyond(PAST_S, rows),
            *(foresight.beyond(PAST_S, rows, j) for j in (BOLDEST, CALMEST)),
        )
        apart.append([guess - bold, calm - bold])
    moved, whole = np.array(apart[-20:]).transpose(1, 3, 0, 2).reshape(2, 2, -1)
    return np.array([(m * w).sum() / (w * w).sum() for m, w in zip(moved, whole, strict=True)])


@settings(max_examples=100, deadline=None)
@given(st.lists(SHARES, min_size=1, max_size=12))
def test_a_guess_lies_between_the_boldest_and_the_calmest_whatever_the_rows(plans: list[Rows]) -> None:
    learnt = Foresight()
    for rows in plans:
        guess = learnt.beyond(PAST_S, rows)
        single = np.array([foresight.beyond(PAST_S, rows, jitter) for jitter in JITTERS])
        assert (guess >= single.min(axis=0) - 1e-9).all()
        assert (guess <= single.max(axis=0) + 1e-9).all()


@settings(max_examples=50, deadline=None)
@given(SHARES, st.floats(-1, 1))
def test_a_face_that_holds_a_pose_is_guessed_to_hold_it(before: Rows, pose: float) -> None:
    learnt = Foresight()
    learnt.beyond(PAST_S, before)
    np.testing.assert_allclose(learnt.beyond(PAST_S, np.full((ROWS, 3), pose)), pose, atol=1e-6)


def test_clean_rows_are_guessed_on_boldly_and_jittering_ones_calmly_each_channel_for_itself() -> None:
    bold, calm = calmness(Foresight(), 40, (0.0, 0.02))
    assert bold < 0.1
    assert calm > 0.8


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_student_that_changes_its_manner_is_known_anew_within_four_seconds(noise: float) -> None:
    learnt, other = Foresight(), 0.02 - noise
    calmness(learnt, 60, (noise, noise))
    calm = calmness(learnt, 120, (other, other), from_s=2.0)
    assert (calm > 0.8).all() if other else (calm < 0.2).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.005, 0.1))
def test_noise_comes_out_at_most_two_and_a_half_times_as_strong_a_hundred_milliseconds_on(
    seed: int, noise: float
) -> None:
    learnt, rng, out = Foresight(), np.random.default_rng(seed), []
    for _ in range(120):
        out.append(learnt.beyond(PAST_S, noise * rng.standard_normal((ROWS, 10)))[2])
    assert np.std(out[20:]) < 2.5 * noise
