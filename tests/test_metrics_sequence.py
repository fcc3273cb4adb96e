"""Lag, compensation, motion and smoothness of curves with a known answer; warped distances of special cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dyad.clock import FPS
from dyad.metrics import sequence
from dyad.metrics.sequence import Limits

Floats = NDArray[np.float32]
LIMITS = Limits(velocity_per_s=3.0, acceleration_per_s2=60.0, jerk_per_s3=3000.0)


def curve(seed: int, frames: int = 400, units: int = 4) -> Floats:
    rng = np.random.default_rng(seed)
    return (
        np.convolve(np.ones(5) / 5, rng.random(frames * units + 4), "valid").reshape(frames, units).astype(np.float32)
    )


@pytest.mark.parametrize("frames", [-12, -1, 0, 7, 25])
def test_a_planted_delay_is_found_with_its_sign(frames: int) -> None:
    true = curve(1)
    pred = np.roll(true, frames, axis=0)
    found = sequence.lag(pred, true)
    assert found.ms == pytest.approx(1000 * frames / FPS, abs=1000 / FPS / 2)
    assert found.correlation > 0.9
    assert found.units == 4


def test_units_that_never_move_do_not_hide_the_lag() -> None:
    true = curve(2)
    pred = np.roll(true, 7, axis=0)
    pred[:, 2] = 0.1
    found = sequence.lag(pred, true)
    assert found.ms == pytest.approx(1000 * 7 / FPS)
    assert found.units == 3
    nowhere = sequence.lag(np.zeros_like(true), true)
    assert np.isnan(nowhere.ms)
    assert nowhere.units == 0


def test_compensation_is_judged_against_the_intended_lag() -> None:
    true = curve(3)
    late = sequence.compensation(np.roll(true, 7, axis=0), true, intended_ms=0)
    assert late.error_ms == pytest.approx(233.3, abs=0.1)
    assert not late.within_a_frame
    meant = sequence.compensation(np.roll(true, 7, axis=0), true, intended_ms=200)
    assert meant.error_ms == pytest.approx(33.3, abs=0.1)
    assert meant.within_a_frame


def test_a_lag_at_the_edge_of_the_search_is_still_within_it() -> None:
    true = curve(4)
    assert sequence.lag(np.roll(true, 15, axis=0), true, max_lag_s=0.5).ms == pytest.approx(500)
    with pytest.raises(ValueError, match="align them first"):
        sequence.lag(true[1:], true)


def test_a_ramp_has_its_slope_and_no_acceleration() -> None:
    ramp = np.linspace(0, 1, FPS + 1)[:, None]
    found = sequence.motion(ramp, Limits(velocity_per_s=1.0, acceleration_per_s2=1.0))
    assert found["velocity"].mean[0] == pytest.approx(1)
    assert found["velocity"].largest[0] == pytest.approx(1)
    assert found["velocity"].above[0] == 0
    assert found["acceleration"].largest[0] == pytest.approx(0, abs=1e-9)
    assert found["jerk"].above[0] == 0


def test_one_jump_is_the_only_frame_above_the_limit() -> None:
    jump = np.zeros((101, 2))
    jump[50:, 1] = 0.2
    found = sequence.motion(jump, LIMITS)
    np.testing.assert_allclose(found["velocity"].above, [0, 1 / 100])
    np.testing.assert_allclose(found["acceleration"].above, [0, 2 / 99])
    np.testing.assert_allclose(found["jerk"].above, [0, 3 / 98])
    assert found["velocity"].largest[1] == pytest.approx(0.2 * FPS)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(5, 60))
def test_derivatives_equal_their_definition(seed: int, frames: int) -> None:
    x = curve(seed, frames, 2).astype(np.float64)
    found = sequence.motion(x, LIMITS)
    speed = np.abs(x[1:] - x[:-1]) * FPS
    third = np.abs(x[3:] - 3 * x[2:-1] + 3 * x[1:-2] - x[:-3]) * FPS**3
    np.testing.assert_allclose(found["velocity"].mean, speed.mean(axis=0))
    np.testing.assert_allclose(found["velocity"].p95, np.percentile(speed, 95, axis=0))
    np.testing.assert_allclose(found["jerk"].largest, third.max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["velocity"].above, (speed > 3).mean(axis=0))


def test_one_frame_has_no_motion() -> None:
    found = sequence.motion(np.zeros((1, 3)), LIMITS)
    for part in found.values():
        assert np.isnan(part.mean).all()
        assert np.isnan(part.above).all()


def test_a_robots_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="configs/robots"):
        Limits(velocity_per_s=0, acceleration_per_s2=1)


def test_numbers_that_are_not_finite_are_refused_with_session_and_frame() -> None:
    x = curve(5, 20, 2)
    x[11, 1] = np.nan
    with pytest.raises(ValueError, match="s017: channel 1 is nan at frame 11"):
        sequence.motion(x, LIMITS, session="s017")
    with pytest.raises(ValueError, match="first sequence"):
        sequence.dtw(x, x[:4])


def test_smoothness_ranks_a_smooth_rise_above_a_shaky_one_whatever_its_height() -> None:
    t = np.linspace(0, 1, 61)
    rise = 10 * t**3 - 15 * t**4 + 6 * t**5
    shaky = rise + 0.02 * np.sin(40 * t)
    found = sequence.smoothness(np.stack([rise, 0.3 * rise, shaky, np.zeros(61)], axis=1))
    assert found[0] == pytest.approx(found[1])
    assert found[0] > found[2]
    assert np.isnan(found[3])
    assert np.isnan(sequence.smoothness(np.zeros((3, 2)))).all()


def test_a_minimum_jerk_rise_has_the_smoothness_of_theory() -> None:
    t = np.linspace(0, 1, 3001)[:, None]
    rise = 10 * t**3 - 15 * t**4 + 6 * t**5
    # ∫ jerk² = 720 for a rise of 1 within 1 s; its largest speed is 15/8.
    assert sequence.smoothness(rise, fps=3000)[0] == pytest.approx(-np.log(720 / (15 / 8) ** 2), abs=0.01)


def test_warping_forgives_timing_but_not_height() -> None:
    x = np.repeat(curve(6, 20, 3), 2, axis=0)
    assert sequence.dtw(x, x[::2]) == 0
    assert sequence.dtw(x, x) == 0
    assert sequence.dtw(np.zeros((5, 1)), np.ones((9, 1))) == pytest.approx(3)
    with pytest.raises(ValueError, match=r"give one channel as x\[:, None\]"):
        sequence.dtw(x[:, 0], x[:, 0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_warped_distance_is_symmetric_and_never_above_the_straight_one(seed: int) -> None:
    x, y = curve(seed, 30, 3), curve(seed + 1, 30, 3)
    assert sequence.dtw(x, y) == pytest.approx(sequence.dtw(y, x), abs=1e-9)
    assert sequence.dtw(x, y) <= np.sqrt(np.square(x.astype(np.float64) - y).sum()) + 1e-9


@pytest.mark.parametrize("start", [5, 150, 280])
def test_one_movement_anywhere_in_a_clip_has_its_lag(start: int) -> None:
    true = np.zeros((300, 2))
    true[start : start + 10, 0] = 1
    found = sequence.lag(np.roll(true, 4, axis=0), true)
    assert found.ms == pytest.approx(1000 * 4 / FPS)
    assert found.correlation == pytest.approx(1)
    assert found.units == 1


def test_a_clip_hardly_longer_than_the_search_has_a_lag_within_a_third_of_it() -> None:
    true = np.sin(np.arange(31) / 3)[:, None]
    late = np.concatenate([true[:1].repeat(3, axis=0), true[:-3]])
    assert sequence.lag(late, true).ms == pytest.approx(100)
    noise = np.random.default_rng(7).random((2, 31, 1))
    assert abs(sequence.lag(noise[0], noise[1]).ms) <= 1000 * 10 / FPS


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.integers(12, 90))
def test_a_lag_is_that_of_the_plain_mean_over_the_units_that_move(seed: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    pred, true = ((rng.random((frames, 3)) < 0.04).astype(float) for _ in range(2))
    found = sequence.lag(pred, true)
    moving = [a for a in range(3) if np.ptp(pred[:, a]) and np.ptp(true[:, a])]
    assert found.units == len(moving)
    if not moving:
        assert np.isnan(found.ms)
        return
    reach = min(FPS, frames // 3)
    means = []
    for lag in range(-reach, reach + 1):
        p, y = (pred[lag:], true[: frames - lag]) if lag >= 0 else (pred[:lag], true[-lag:])
        both = [a for a in moving if np.ptp(p[:, a]) and np.ptp(y[:, a])]
        means.append(sum(np.corrcoef(p[:, a], y[:, a])[0, 1] for a in both) / len(moving))
    assert found.correlation == pytest.approx(max(means), abs=1e-9)
    assert means[round(found.ms * FPS / 1000) + reach] == pytest.approx(max(means), abs=1e-9)
