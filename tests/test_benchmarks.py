"""What the benchmarks compute besides time: half-rises, multiply-adds, verdicts, and the README's figures."""

import copy
import json
from typing import Any

import numpy as np
import pytest

from benchmarks import figures, loop, soak
from benchmarks.planted_lags import AFTER, BEFORE, answered_by, half_rise_s
from dyad.synthetic.listener import REACTIONS


@pytest.mark.parametrize("lag_frames", [6, 15, 40])
def test_a_step_that_rises_over_ten_frames_is_half_way_five_frames_after_its_lag(lag_frames: int) -> None:
    t = np.arange(BEFORE + AFTER) - BEFORE
    curve = 0.1 + 0.6 * np.clip((t - lag_frames) / 10, 0, 1)
    assert half_rise_s(curve) == pytest.approx((lag_frames + 5) / 30, abs=0.02)


def test_a_flat_curve_has_no_lag() -> None:
    assert np.isnan(half_rise_s(np.full(BEFORE + AFTER, 0.3)))


def test_every_kind_of_event_is_answered_by_a_unit_with_a_planted_lag() -> None:
    for kind in REACTIONS:
        unit, lag_s = answered_by(kind)
        assert unit.startswith("AU")
        assert 0.1 < lag_s < 2


@pytest.mark.parametrize("block", figures.BLOCKS)
def test_the_readme_holds_the_figures_of_the_results_files(block: str) -> None:
    for name, table in figures.BLOCKS[block].items():
        path = figures.RESULTS / f"{name}.json"
        text = table(json.loads(path.read_text(encoding="utf8")))
        assert text in (figures.ROOT / "README.md").read_text(encoding="utf8")


KEPT_LOOP = {
    "stages": {"total": {"p99_ms": 11.0}, "student": {"p99_ms": 2.0}}, "ticks": 1800, "missed_ticks": 18,
}  # fmt: skip
LOOP_FAULTS = [
    ({"stages": {"total": {"p99_ms": 33.4}}}, "p99 of a tick"),
    ({"missed_ticks": 19}, "no tick missed"),
    ({"stages": {"student": {"p99_ms": 11.2}}}, "the student's step"),
]


def changed(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the leaves in `change` put in their place."""
    found = copy.deepcopy(base)
    for key, value in change.items():
        found[key] = changed(found[key], value) if isinstance(value, dict) else value
    return found


@pytest.mark.parametrize(("change", "broken"), LOOP_FAULTS)
def test_each_broken_promise_of_the_loop_is_a_verdict_of_its_own(change: dict[str, Any], broken: str) -> None:
    assert all(loop.verdicts(KEPT_LOOP).values())
    (promise,) = [promise for promise, kept in loop.verdicts(changed(KEPT_LOOP, change)).items() if not kept]
    assert promise.startswith(broken)


def minutes(**last: float) -> list[soak.Minute]:
    """Four minutes alike but for the last."""
    alike = dict.fromkeys(soak.Minute.__dataclass_fields__, 2.0)
    return [soak.Minute(**alike)] * 3 + [soak.Minute(**(alike | last))]


@pytest.mark.parametrize(
    ("last", "speed", "broken"),
    [
        ({"memory_mb": 2.0 + soak.FLAT_MB + 0.1}, 4.0, "memory"),
        ({"memory_mb": 2.0 - soak.FLAT_MB - 0.1}, 4.0, "memory"),
        ({"busy_p99_ms": 2.3}, 4.0, "p99"),
        ({"busy_p99_ms": 2.3, "yardstick_ms": 2.3}, 4.0, None),  # the machine slowed down, not the loop
        ({"busy_p99_ms": 2.0, "yardstick_ms": 2.6}, 4.0, "p99"),  # alike on a slower machine: the loop changed
        ({}, 3.9, "four times"),
        ({}, 4.0, None),
    ],
)
def test_a_soak_is_judged_by_its_last_minute_and_by_what_the_machine_did_meanwhile(
    last: dict[str, float], speed: float, broken: str | None
) -> None:
    found = {**soak.change(minutes(**last)), "times_real_time": speed}
    failed = [promise for promise, kept in soak.verdicts(found).items() if not kept]
    assert [promise.split()[0] for promise in failed] == ([] if broken is None else [broken.split()[0]])


def test_memory_that_grows_and_falls_again_is_seen() -> None:
    grown = minutes(memory_mb=9.0)
    assert soak.change([*grown, minutes()[0]])["memory_change_mb"] == 7.0
