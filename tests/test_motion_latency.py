"""The look-ahead is what the face is late by, measured; it follows changes soon, and stillness teaches it nothing."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deploy.motion import latency
from deploy.motion.config import MotionConfig
from deploy.motion.latency import Curve, LagMeter, LookAhead
from dyad.clock import FRAME_S

CHANNELS = 4
LATE_S = (0.05, 0.1, 0.15, 0.2)


def movement(seconds: float, seed: int = 0, channels: int = CHANNELS) -> NDArray[np.float64]:
    """A face that moves: smooth random curves with content below 3 Hz, every millisecond; [T, C]."""
    noise = np.random.default_rng(seed).standard_normal((round(seconds * 30) + 30, channels))
    kernel = np.hanning(17) / np.hanning(17).sum()
    coarse = np.array([np.convolve(c, kernel, "same") for c in noise.T])
    fine_s = np.arange(0, seconds, 1e-3)
    return np.stack([np.interp(fine_s, np.arange(len(noise)) / 30, c) for c in coarse], axis=1)


def watch(meter: LagMeter, curve: NDArray[np.float64], late_s: NDArray[np.float64], *, from_s: float = 0.6,
          to_s: float, seed: int = 0, noise: float = 0.0) -> None:  # fmt: skip
    """Ticks of 10–25 ms on a curve whose channels are each `late_s` [C] late."""
    rng, now_s, each = np.random.default_rng(seed), from_s, np.arange(curve.shape[1])
    while now_s < to_s:
        told = curve[round(now_s * 1000)]
        did = curve[np.round((now_s - late_s) * 1000).astype(int), each] + noise * rng.standard_normal(len(told))
        meter.watch(now_s, told, now_s, did)
        now_s += rng.uniform(0.01, 0.025)


@pytest.mark.parametrize("late_s", [0.0, *LATE_S, 0.4])
def test_the_lag_of_a_delayed_copy_is_found_at_uneven_ticks(late_s: float) -> None:
    meter = LagMeter(CHANNELS, 0.3)
    watch(meter, movement(6.0), np.full(CHANNELS, late_s), to_s=6.0)
    assert meter.measured
    assert meter.lag_s == pytest.approx(late_s, abs=0.15 * FRAME_S)


def test_a_slow_neck_among_fast_brows_is_told_apart() -> None:
    meter, late_s = LagMeter(CHANNELS, 0.1), np.array([0.05, 0.05, 0.05, 0.25])
    watch(meter, movement(8.0), late_s, to_s=8.0)
    np.testing.assert_allclose(meter.lags_s, late_s, atol=FRAME_S)


def test_noise_of_the_sensors_does_not_move_the_lag() -> None:
    meter = LagMeter(CHANNELS, 0.3)
    watch(meter, movement(6.0), np.full(CHANNELS, 0.12), to_s=6.0, noise=0.01)
    assert meter.lag_s == pytest.approx(0.12, abs=0.5 * FRAME_S)


@pytest.mark.parametrize("seed", range(8))
def test_what_a_face_does_at_first_may_agree_with_another_lag_and_is_not_believed(seed: int) -> None:
    meter, told = LagMeter(CHANNELS, 0.12), movement(4.0, seed)
    speed = np.gradient(told, axis=0)
    did_speed = np.zeros_like(speed)  # still until 1.5 s, for a moment as by another lag, then as by the true one
    did_speed[1500:1700], did_speed[1700:] = speed[1100:1300], speed[1580:-120]
    did = np.cumsum(did_speed, axis=0)
    for now_s in np.arange(0.6, 4.0, 1 / 60):
        at = int(now_s * 1000)
        meter.watch(now_s, told[at], now_s, did[at])
        assert meter.lag_s == pytest.approx(0.12, abs=0.05)
    assert meter.measured


def test_a_still_face_teaches_nothing_and_unteaches_nothing() -> None:
    meter, curve = LagMeter(CHANNELS, 0.3), movement(4.0)
    watch(meter, np.zeros_like(curve), np.zeros(CHANNELS), to_s=4.0, noise=0.0005)
    assert (meter.lag_s, meter.measured) == (0.3, False)
    meter = LagMeter(CHANNELS, 0.3)
    still = np.concatenate([curve, np.repeat(curve[-1:], 60_000, axis=0)])
    watch(meter, still, np.full(CHANNELS, 0.15), to_s=60.0)
    assert meter.lag_s == pytest.approx(0.15, abs=0.2 * FRAME_S)


def test_a_motor_that_moves_on_its_own_is_not_believed() -> None:
    meter, told, did = LagMeter(CHANNELS, 0.1), movement(6.0, seed=1), movement(6.0, seed=2)
    for now_s in np.arange(0.6, 6.0, 1 / 60):
        row = round(now_s * 1000)
        meter.watch(now_s, told[row], now_s, did[row])
    assert meter.lag_s == 0.1


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_sensor_that_says_no_number_is_not_listened_to(odd: float) -> None:
    meter, curve = LagMeter(CHANNELS, 0.3), movement(6.0)
    for i, now_s in enumerate(np.arange(0.6, 6.0, 1 / 60)):
        did = curve[round((now_s - 0.1) * 1000)] if i % 3 else np.full(CHANNELS, odd)
        meter.watch(now_s, curve[round(now_s * 1000)], now_s, did)
    assert meter.lag_s == pytest.approx(0.1, abs=0.5 * FRAME_S)


@pytest.mark.parametrize(("first_s", "then_s"), [(0.05, 0.2), (0.2, 0.05)])
def test_a_changed_lag_is_followed_within_three_seconds(first_s: float, then_s: float) -> None:
    config, curve = MotionConfig(margin_s=0.0), movement(14.0)
    look = LookAhead(CHANNELS, 0.0, first_s, config)
    rng, now_s, before_s, reached_s = np.random.default_rng(0), 0.6, 0.0, None
    look.own.lag_s, look.own.lags_s = 0.0, np.zeros(CHANNELS)
    while now_s < 14.0:
        late_s = first_s if now_s < 8.0 else then_s
        look.motor.watch(now_s, curve[round(now_s * 1000)], now_s, curve[round((now_s - late_s) * 1000)])
        look.update(now_s - before_s, 0.25)
        if abs(look.mean_s - late_s) > FRAME_S:
            reached_s = None
        elif reached_s is None:
            reached_s = now_s
        before_s, now_s = now_s, now_s + rng.uniform(0.01, 0.025)
    assert reached_s is not None
    assert 8.0 < reached_s <= 11.0
    np.testing.assert_allclose(look.ahead_s, then_s, atol=FRAME_S)


def told_of(meter: LagMeter, late_s: Callable[[float], float], to_s: float, seed: int, noise: float) -> Iterator[float]:
    """Ticks of 10–25 ms whose lag may change; yields after each."""
    rng, curve, now_s = np.random.default_rng(seed), movement(to_s + 0.1, seed), 0.6
    while now_s < to_s:
        did = curve[round((now_s - late_s(now_s)) * 1000)] + noise * rng.standard_normal(CHANNELS)
        meter.watch(now_s, curve[round(now_s * 1000)], now_s, did)
        yield now_s
        now_s += rng.uniform(0.01, 0.025)


def seconds_to(then_s: float, seed: int) -> float:
    """How long a meter needs to be within 20 ms of a lag that jumps from 80 ms, and to stay there."""
    meter, far_s = LagMeter(CHANNELS, 0.08), 5.0
    for now_s in told_of(meter, lambda at_s: 0.08 if at_s < 5.0 else then_s, 9.0, seed, 0.0):
        far_s = now_s if now_s > 5.0 and abs(meter.lag_s - then_s) > 0.02 else far_s
    return far_s - 5.0


def test_a_jump_of_the_lag_is_believed_sooner_than_by_the_long_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with_short = [seconds_to(0.23, seed) for seed in range(8)]
    monkeypatch.setattr(latency, "SURE", 2.0)
    without = [seconds_to(0.23, seed) for seed in range(8)]
    assert np.mean(with_short) < 0.75 * np.mean(without)
    assert max(with_short) < 1.2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(LATE_S), st.floats(0, 0.01))
def test_a_lag_that_stays_is_never_left_for_another(seed: int, late_s: float, noise: float) -> None:
    meter = LagMeter(CHANNELS, late_s)
    for now_s in told_of(meter, lambda _: late_s, 6.0, seed, noise):
        assert now_s < 2.0 or abs(meter.lag_s - late_s) < FRAME_S


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(-1, 0.5), st.floats(1e-3, 0.1)), max_size=40), st.floats(0, 2))
def test_the_look_ahead_stays_in_bounds_and_never_jumps(
    ticks: list[tuple[float, float, float]], guess_s: float
) -> None:
    config = MotionConfig()
    look = LookAhead(CHANNELS, 0.0, guess_s, config)
    for lag_s, left_s, dt_s in ticks:
        look.motor.lag_s, look.motor.lags_s = lag_s, np.full(CHANNELS, lag_s)
        before = look.ahead_s, look.mean_s
        look.update(dt_s, left_s)
        for old, new in ((before[0], look.ahead_s), (np.array(before[1]), np.array(look.mean_s))):
            assert (np.abs(new - old) <= config.slew_per_s * dt_s + 1e-12).all()
            assert (new >= 0).all()
            assert (new <= config.longest_look_ahead_s).all()


def test_the_look_ahead_goes_no_further_than_plans_reach_when_the_next_is_due() -> None:
    config = MotionConfig(beyond_s=0.05)
    look = LookAhead(CHANNELS, 0.1, 0.3, config)
    for tick in range(1200):
        look.update(1 / 60, 0.2 - 0.1 * (tick % 4) / 3)  # between two plans 200 ms run down to 100
    assert 0.1 <= look.mean_s <= 0.17


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**31))
def test_a_curve_is_read_at_uneven_times_as_numpy_interpolates_its_newest_points(points: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    curve, times, values = Curve(2, 64), np.cumsum(rng.uniform(0.01, 0.03, points)), rng.random((points, 2))
    for t, v in zip(times, values, strict=True):
        curve.add(t, v)
    kept_s, kept = times[-64:], values[-64:]
    at_s = rng.uniform(kept_s[0] - 0.1, kept_s[-1] + 0.1, 20)
    expected = np.stack([np.interp(at_s, kept_s, column) for column in kept.T], axis=1)
    np.testing.assert_allclose(curve.at(at_s), expected, atol=1e-9)
    assert (curve.first_s, curve.last_s) == (kept_s[0], kept_s[-1])
