"""Velocity, acceleration and jerk hold for whatever is asked and however the ticks come; holds are not for ever."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from toy_robot import CALIBRATION, exceeded

from deploy.calibration import Calibration
from deploy.motion.config import MotionConfig
from deploy.motion.course import Pace
from deploy.motion.holds import COMES_DOWN_TO, HoldRule
from deploy.motion.limits import Limiter

C = len(CALIBRATION.names)
TICKS_PER_S = 60
LOW = np.where(CALIBRATION.one_way, 0.0, -1.0)
anything = st.floats(-2, 3) | st.sampled_from([0.0, 0.5, 1.0, -1.0, float("nan"), float("inf"), -float("inf")])
uneven = st.floats(1e-3, 0.08) | st.sampled_from([1 / 60, 1 / 30])
asked = st.lists(st.tuples(st.lists(anything, min_size=C, max_size=C), uneven, st.integers(1, 9)), max_size=20)


def limiter() -> Limiter:
    return Limiter(*CALIBRATION.limits, LOW)


def follow(limiter: Limiter, goals: list[tuple[list[float], float, int]]) -> list[tuple[float, NDArray[np.float64]]]:
    """Where it was when; every goal is held for a number of ticks of one length."""
    path, now_s = [(0.0, limiter.position)], 0.0
    for goal, dt_s, ticks in goals:
        for _ in range(ticks):
            now_s += dt_s
            path.append((now_s, limiter.step(np.array(goal, float), dt_s)))
    return path


@settings(max_examples=150, deadline=None)
@given(asked, st.lists(anything, min_size=C, max_size=C))
def test_no_limit_is_exceeded_whatever_is_asked_and_however_uneven_the_ticks(
    goals: list[tuple[list[float], float, int]], pose: list[float]
) -> None:
    moving = limiter()
    moving.reset(np.array(pose))
    path = follow(moving, goals)
    assert max(exceeded(path)) <= 1 + 1e-6
    levels = np.array([x for _, x in path])
    assert np.isfinite(levels).all()
    assert (levels >= LOW).all()
    assert (levels <= 1).all()


@settings(max_examples=80, deadline=None)
@given(asked, st.integers(0, 2**31))
def test_braking_to_a_slower_speed_limit_keeps_the_other_limits(
    goals: list[tuple[list[float], float, int]], seed: int
) -> None:
    moving, rng = limiter(), np.random.default_rng(seed)
    path, now_s = [(0.0, moving.position)], 0.0
    for goal, dt_s, ticks in goals:
        moving.top_speed = CALIBRATION.limits[0] * rng.uniform(0.2, 1)
        for _ in range(ticks):
            now_s += dt_s
            path.append((now_s, moving.step(np.array(goal, float), dt_s)))
    assert max(exceeded(path)) <= 1 + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=C, max_size=C), st.lists(st.floats(-1, 1), min_size=C, max_size=C), uneven)
def test_a_held_goal_is_reached_without_overshoot(first: list[float], second: list[float], dt_s: float) -> None:
    moving, ticks = limiter(), round(1.5 / dt_s)
    begin, end = np.clip(first, LOW, 1), np.clip(second, LOW, 1)
    moving.reset(begin)
    levels = np.array([x for _, x in follow(moving, [(second, dt_s, ticks)])])
    np.testing.assert_allclose(levels[-1], end, atol=1e-6)
    assert (levels >= np.minimum(begin, end) - 1e-6).all()
    assert (levels <= np.maximum(begin, end) + 1e-6).all()


def test_a_goal_that_is_no_number_keeps_the_face_where_it_is() -> None:
    moving = limiter()
    moving.reset(np.full(C, 0.4))
    path = follow(moving, [([float("nan"), float("inf"), 0.4, float("nan"), 0.4], 1 / 60, 30)])
    np.testing.assert_allclose(path[-1][1], 0.4)


def test_the_fastest_way_to_a_far_goal_takes_as_long_as_mechanics_says() -> None:
    velocity, acceleration, jerk = CALIBRATION.limits
    needed_s = 1 / velocity + velocity / acceleration + acceleration / jerk
    levels = np.array([x for _, x in follow(limiter(), [([1.0] * C, 1e-3, 1000)])])
    np.testing.assert_allclose((levels > 1 - 1e-9).argmax(axis=0) * 1e-3, needed_s, atol=2e-3)


def test_a_start_outside_the_travel_begins_at_its_end() -> None:
    moving = limiter()
    moving.reset(np.array([1.2, -0.1, float("nan"), 0.5, -3.0]))
    np.testing.assert_array_equal(moving.position, [1.0, 0.0, 0.0, 0.5, -1.0])


def test_a_robot_without_channels_has_nothing_to_limit() -> None:
    nothing = np.zeros(0)
    assert Limiter(nothing, nothing, nothing, nothing).step(nothing, 0.01).shape == (0,)


@settings(max_examples=100, deadline=None)
@example(3.0, 30.0, 1000.0, 1.0, 37706273)  # the first tick's way is a third too long, the second's is not
@given(st.floats(3, 12), st.floats(30, 400), st.floats(1000, 9000), st.floats(0.1, 1.4), st.integers(0, 2**31))
def test_the_way_home_is_as_gentle_as_its_time_allows(v: float, a: float, j: float, return_s: float, seed: int) -> None:
    one = dataclasses.replace(CALIBRATION, velocity_per_s=v, acceleration_per_s2=a, jerk_per_s3=j)
    pace = Pace.of(one, MotionConfig(return_s=return_s))
    assert (pace.gentle <= pace.swift).all()
    moving, rng = Limiter(*one.limits, LOW), np.random.default_rng(seed)
    follow(moving, [(list(rng.uniform(-1, 1, C)), rng.uniform(0.005, 0.1), 1) for _ in range(8)])  # some motion
    moving.top_speed = pace.gentle
    n_ticks = math.ceil((pace.home_s - pace.settle_s) * TICKS_PER_S)
    follow(moving, [([0.0] * C, (pace.home_s - pace.settle_s) / n_ticks, n_ticks)])
    assert moving.home
    in_time = 1 / pace.gentle + pace.gentle / one.limits[1] <= return_s + 1e-9
    assert (in_time | (pace.gentle == pace.swift)).all()


def hold_for(rule: HoldRule, wished: float, seconds: float) -> NDArray[np.float64]:
    """Bound goals of the jaw, its position following at once; [T]."""
    jaw, at, got = CALIBRATION.position("jaw"), np.zeros(C), []
    for _ in range(round(seconds * 60)):
        goal = np.zeros(C)
        goal[jaw] = wished
        at, _ = rule.apply(goal, at, 1 / 60)
        got.append(at[jaw])
    return np.array(got)


def test_a_jaw_held_wide_open_relaxes_after_its_time_and_may_open_again_after_it_came_down() -> None:
    rule = HoldRule(CALIBRATION)
    open_s = (hold_for(rule, 0.9, 3.0) > 0.6 + 1e-9).sum() / 60
    assert open_s == pytest.approx(1.0, abs=0.05)
    assert (hold_for(rule, 0.9, 5.0) <= 0.6).all(), "still wished: still relaxed"
    hold_for(rule, 0.9 * COMES_DOWN_TO * 0.6, 1.0)
    assert hold_for(rule, 0.9, 0.5)[-1] == 0.9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.02, 1.5)), min_size=1, max_size=40))
def test_no_pattern_of_dipping_in_holds_a_channel_out_for_more_than_its_share(parts: list[tuple[float, float]]) -> None:
    rule = HoldRule(CALIBRATION)
    got = np.concatenate([hold_for(rule, wished, seconds) for wished, seconds in parts])
    out = np.abs(got) > 0.6 + 1e-9
    window = 60 * 6  # in six seconds: the first one, and at most half of the rest
    longest = max(out[i : i + window].sum() for i in range(0, len(out), 15))
    assert longest <= 60 * (1 + 5 / 2) + 6


def test_channels_without_the_rule_may_stay_out() -> None:
    calm = Calibration.load("null")
    goal, relaxed = HoldRule(calm).apply(np.zeros(0), np.zeros(0), 1.0)
    assert (goal.shape, relaxed) == ((0,), 0)
