"""Ticks fall just after the plans where plans come in step with them, and stay as even as they were where not."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deploy.motion.rhythm import SHIFT, STALL_S, Rhythm

PERIOD_S = 1 / 60
TIMES = st.floats(0, 1e5, allow_nan=False)


def waits_of(came_s: NDArray[np.float64], period_s: float = PERIOD_S, first_s: float = 0.0) -> NDArray[np.float64]:
    """How long every plan waits for its tick, when plans come at `came_s`, which rise."""
    rhythm, due_s, coming, waits = Rhythm(period_s), first_s, 0, list[float]()
    while coming < len(came_s):
        while coming < len(came_s) and came_s[coming] <= due_s:
            rhythm.came(came_s[coming])
            waits.append(due_s - came_s[coming])
            coming += 1
        due_s = rhythm.after(due_s)
    return np.array(waits)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, PERIOD_S), st.sampled_from([30.0, 60.0, 120.0]), st.floats(0, 1e4))
def test_a_plan_that_comes_every_few_ticks_soon_waits_for_a_millisecond_or_two(
    offset_s: float, rate_hz: float, begins_s: float
) -> None:
    came_s = begins_s + offset_s + np.arange(150) / 30
    assert waits_of(came_s, 1 / rate_hz, begins_s)[90:].max() < 0.003


@pytest.mark.parametrize("jitter_s", [0.001, 0.002])
def test_plans_that_jitter_a_little_wait_for_less_than_chance_would_make_them(jitter_s: float) -> None:
    rng = np.random.default_rng(0)
    came_s = np.sort(0.3 + np.arange(900) / 30 + jitter_s * rng.standard_normal(900))
    assert waits_of(came_s)[100:].mean() < 0.7 * PERIOD_S / 2


@pytest.mark.parametrize("rate_hz", [50.0, 100.0, 48.0])
def test_where_plans_come_out_of_step_the_ticks_stay_where_they_are(rate_hz: float) -> None:
    rhythm, due_s = Rhythm(1 / rate_hz), 0.0
    for tick in range(3000):
        for seq in range(math.ceil(30 * (tick - 1) / rate_hz), math.ceil(30 * tick / rate_hz)):
            rhythm.came(seq / 30 + 0.001)
        due_s = rhythm.after(due_s)
    assert due_s == pytest.approx(3000 / rate_hz, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(TIMES, st.none()), max_size=200), TIMES, st.floats(1 / 500, 1.0))
def test_whenever_plans_come_no_deadline_is_moved_by_more_than_a_twentieth(
    came: list[float | None], due_s: float, period_s: float
) -> None:
    rhythm = Rhythm(period_s)
    for at_s in came:
        if at_s is not None:
            rhythm.came(at_s)
        following_s = rhythm.after(due_s)
        assert abs(following_s - due_s - period_s) <= SHIFT * period_s + 1e-9
        due_s = following_s


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=50), st.floats(1 / 500, 0.1))
def test_a_tick_knows_the_time_since_the_last_unless_it_is_far_too_late(gaps: list[float], period_s: float) -> None:
    rhythm, now_s = Rhythm(period_s), 5.0
    assert rhythm.elapsed(now_s) == period_s, "the first"
    for gap_s in gaps:
        now_s += gap_s
        since_s = rhythm.elapsed(now_s)
        if gap_s > max(STALL_S, 2.5 * period_s) + 1e-9:
            assert since_s is None
        elif gap_s < max(STALL_S, 2.5 * period_s) - 1e-9:
            assert since_s == pytest.approx(gap_s, abs=1e-9)
    rhythm.pause()
    assert rhythm.elapsed(now_s + 60) == period_s
