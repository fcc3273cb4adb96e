"""Motion stays within its bounds whatever comes in, and looks ahead by what the motors really take."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter

from deploy.motion.latency import SLEW_PER_S, DelayEstimator, at_look_ahead, best_lag_s
from deploy.motion.limits import Limiter
from deploy.motion.smooth import OneEuro, OneEuroConfig
from dyad.clock import FPS, FRAME_S

UNITS = 3
anything = st.floats(-2, 3, width=32) | st.sampled_from([0.0, 0.5, 1.0, float("nan"), float("inf"), -float("inf")])
goals = st.lists(st.tuples(st.lists(anything, min_size=UNITS, max_size=UNITS), st.integers(1, 12)), max_size=25)
limits = st.tuples(st.floats(0.2, 20), st.floats(0.5, 500))


def follow(limiter: Limiter, wished: list[tuple[list[float], int]]) -> NDArray[np.float64]:
    """Positions [T + 1, A], the neutral start first; each goal is held for its number of ticks."""
    path = [limiter.position.copy()]
    for goal, ticks in wished:
        for _ in range(ticks):
            limiter.step(np.array(goal, np.float32), FRAME_S)
            path.append(limiter.position.copy())
    return np.array(path)


@settings(max_examples=150, deadline=None)
@given(goals, limits)
def test_velocity_and_acceleration_are_never_exceeded_whatever_is_asked(
    wished: list[tuple[list[float], int]], limit: tuple[float, float]
) -> None:
    path = follow(Limiter(UNITS, *limit), wished)
    velocity = np.diff(path, axis=0, prepend=path[:1]) / FRAME_S
    acceleration = np.diff(velocity, axis=0) / FRAME_S
    assert np.isfinite(path).all()
    assert path.min() >= 0
    assert path.max() <= 1
    assert np.abs(velocity).max(initial=0) <= limit[0] * (1 + 1e-9)
    assert np.abs(acceleration).max(initial=0) <= limit[1] * (1 + 1e-9) + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), limits)
def test_a_held_goal_is_reached_without_overshoot(first: float, second: float, limit: tuple[float, float]) -> None:
    limiter = Limiter(1, *limit)
    ticks = round(FPS * (2 + 1 / limit[0] + 4 / np.sqrt(limit[1]) + limit[0] / limit[1]))
    follow(limiter, [([first], ticks)])
    path = follow(limiter, [([second], ticks)])
    assert path[-1, 0] == pytest.approx(second, abs=1e-3)
    assert path.min() >= min(first, second) - 1e-6
    assert path.max() <= max(first, second) + 1e-3


def test_a_goal_that_is_no_number_keeps_the_face_where_it_is() -> None:
    limiter = Limiter(2, 6.0, 80.0)
    follow(limiter, [([0.4, 0.7], 60)])
    path = follow(limiter, [([float("nan"), float("inf")], 30)])
    assert np.abs(path - path[0]).max() < 1e-6


def test_the_fastest_way_to_a_far_goal_takes_as_long_as_mechanics_says() -> None:
    velocity, acceleration = 4.0, 40.0
    path = follow(Limiter(1, velocity, acceleration), [([1.0], 40)])[:, 0]
    needed_s = 1 / velocity + velocity / acceleration  # a trapezium of speed over a way of 1
    arrived_s = np.argmax(path > 1 - 1e-6) * FRAME_S
    assert needed_s - FRAME_S <= arrived_s <= needed_s + 2 * FRAME_S


def test_smoothing_with_no_opening_is_the_first_order_low_pass_of_scipy() -> None:
    config = OneEuroConfig(rest_hz=2.0, opening=0.0, speed_hz=1.0)
    signal = np.random.default_rng(0).random((200, 5)).astype(np.float32)
    smooth = OneEuro(config)
    ours = np.array([smooth.step(row, FRAME_S) for row in signal])
    weight = 2 * np.pi * 2.0 * FRAME_S / (1 + 2 * np.pi * 2.0 * FRAME_S)
    theirs, _ = lfilter([weight], [1, weight - 1], signal, axis=0, zi=(1 - weight) * signal[:1])
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2), min_size=1, max_size=60))
def test_smoothing_never_leaves_the_range_of_what_it_was_given(rows: list[list[float]]) -> None:
    smooth, given_rows = OneEuro(), np.array(rows, np.float32)
    out = np.array([smooth.step(row, FRAME_S) for row in given_rows])
    assert (out >= given_rows.min(0) - 1e-6).all()
    assert (out <= given_rows.max(0) + 1e-6).all()


def test_smoothing_calms_jitter_at_rest_yet_lets_a_fast_smile_through() -> None:
    rng = np.random.default_rng(1)
    jitter = (0.3 + 0.02 * rng.standard_normal((300, 1))).astype(np.float32)
    smooth = OneEuro()
    calm = np.array([smooth.step(row, FRAME_S) for row in jitter])
    assert calm[30:].std() < 0.6 * jitter[30:].std()
    rise = [float(smooth.step(np.array([1.0], np.float32), FRAME_S)[0]) for _ in range(6)]
    assert rise[-1] > 0.85, "a step must be followed within 200 ms"


def movement(frames: int, seed: int = 0) -> NDArray[np.float64]:
    """A face that moves: smooth random curves [T, 4] with content below 3 Hz."""
    noise = np.random.default_rng(seed).standard_normal((frames + 60, 4))
    kernel = np.hanning(15) / np.hanning(15).sum()
    return np.array([np.convolve(c, kernel, "same") for c in noise.T]).T[30 : 30 + frames]


@pytest.mark.parametrize("lag_frames", [0, 1, 4, 9, 13])
def test_the_lag_of_a_delayed_copy_is_found_exactly(lag_frames: int) -> None:
    told = movement(240)
    did = np.vstack([np.repeat(told[:1], lag_frames, 0), told[: len(told) - lag_frames]])
    assert best_lag_s(told, did) == pytest.approx(lag_frames * FRAME_S, abs=0.1 * FRAME_S)


def test_a_lag_between_two_ticks_is_found_to_a_quarter_of_a_tick() -> None:
    fine = movement(2400)[:, :]
    smooth = np.array([np.convolve(c, np.ones(10) / 10, "same") for c in fine.T]).T
    told, did = smooth[40::10][:200], smooth[40 - 25 :: 10][:200]  # 2.5 ticks late
    assert best_lag_s(told, did) == pytest.approx(2.5 * FRAME_S, abs=0.25 * FRAME_S)


def test_a_face_that_did_not_move_tells_nothing_about_delay() -> None:
    assert best_lag_s(np.zeros((240, 4)), np.zeros((240, 4))) is None
    assert best_lag_s(movement(10), movement(10)) is None


def test_look_ahead_settles_on_the_measured_delay_and_moves_slowly() -> None:
    delay, told = DelayEstimator(first_guess_s=0.02, longest_s=8 / 30), movement(600)
    taken = [delay.look_ahead_s]
    for t in range(600):
        delay.watch(told[t], told[max(t - 5, 0)])
        taken.append(delay.update(0.004, FRAME_S))
    assert np.abs(np.diff(taken)).max() <= SLEW_PER_S * FRAME_S + 1e-12
    assert delay.motor_lag_s == pytest.approx(5 * FRAME_S, abs=0.15 * FRAME_S)
    assert taken[-1] == pytest.approx(5.5 * FRAME_S + 0.004, abs=0.2 * FRAME_S)


@given(st.lists(st.floats(-1, 5), max_size=40), st.floats(0, 2))
def test_look_ahead_never_leaves_what_the_plan_covers(waits: list[float], guess: float) -> None:
    delay = DelayEstimator(guess, 8 / 30)
    for wait_s in waits:
        assert 0 <= delay.update(wait_s, FRAME_S) <= 8 / 30 + 1e-12


@given(st.floats(-0.1, 0.6), st.integers(0, 2**31))
def test_a_plan_is_read_between_its_horizons_as_numpy_interpolates(ahead_s: float, seed: int) -> None:
    horizons = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    plan = np.random.default_rng(seed).random((5, 3)).astype(np.float32)
    expected: Any = [np.interp(ahead_s * FPS, horizons, plan[:, a]) for a in range(3)]
    np.testing.assert_allclose(at_look_ahead(plan, horizons, ahead_s), expected, atol=1e-6)
