"""The benchmark of bad networks sees what it says it sees: freezes, replays and broken limits that are planted."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from benchmarks import loop_figures, network
from benchmarks.network_judge import Script, extremes, home_after_s, judge, newest_end_s, verdicts
from deploy.calibration import Calibration, Mixer
from deploy.motion.states import Moment
from deploy.robots import Feedback

SIM, SCRIPT = Calibration.load("sim"), Script()
MIXER = Mixer(SIM)
AHEAD_S = 0.1


def pose(time_s: float) -> np.ndarray:
    return MIXER.mix(SIM.intensity(SCRIPT.at(np.array(time_s))))


def perfect(seconds: float = 6.0) -> list[Moment]:
    """A controller without fault: every goal is of its moment, the head is where it should be."""
    return [
        Moment(t, t + AHEAD_S, pose(t + AHEAD_S), pose(t), Feedback(t, pose(t), pose(t)), "following")
        for t in (k / 60 for k in range(round(60 * seconds)))
    ]


CAME = [(k / 30, k, k / 30 + 0.25) for k in range(180)]


def test_a_perfect_controller_has_nothing_to_be_blamed_for() -> None:
    figures = judge(SIM, SCRIPT, perfect(), CAME)
    assert figures["frozen_with_plan"] == figures["replayed_late"] == figures["ticks_held"] == 0
    assert figures["tracking_rms"] < 1e-6
    assert figures["off_moment_ms_p99"] <= 5


def test_a_pose_that_stands_though_plan_remains_is_a_freeze() -> None:
    moments = perfect()
    for k in range(200, 210):
        moments[k] = dataclasses.replace(moments[k], goal=moments[199].goal)
    assert judge(SIM, SCRIPT, moments, CAME)["frozen_with_plan"] == 10
    for k in range(220, 225):
        moments[k] = dataclasses.replace(moments[k], state="holding")
    assert judge(SIM, SCRIPT, moments, CAME)["frozen_with_plan"] == 15


def test_holding_after_the_plan_has_run_out_is_no_freeze() -> None:
    moments, came = perfect(), [row for row in CAME if not 3.0 < row[0] < 4.0]
    for k, m in enumerate(moments):
        if m.now_s + AHEAD_S > 3.25 and m.now_s < 4.0:
            moments[k] = dataclasses.replace(m, state="holding", goal=moments[k - 1].goal)
    figures = judge(SIM, SCRIPT, moments, came)
    assert figures["frozen_with_plan"] == 0
    assert figures["ticks_held"] > 30


@pytest.mark.parametrize("late_s", [0.1, 0.3])
def test_poses_of_a_moment_that_has_passed_are_replays(late_s: float) -> None:
    moments = perfect()
    for k in range(200, 230):
        moments[k] = dataclasses.replace(moments[k], goal=pose(moments[k].target_time_s - late_s))
    assert judge(SIM, SCRIPT, moments, CAME)["replayed_late"] == 30


def test_a_replay_is_counted_once_whatever_time_it_is_said_to_be_for() -> None:
    moments = perfect()
    for k in range(200, 230):
        target_s = moments[k].now_s - 0.001
        moments[k] = dataclasses.replace(moments[k], target_time_s=target_s, goal=pose(target_s - 0.2))
    assert judge(SIM, SCRIPT, moments, CAME)["replayed_late"] == 30


def test_a_jump_is_seen_as_more_speed_and_acceleration_than_allowed() -> None:
    moments = perfect()
    assert max(extremes(SIM, moments).values()) < 1
    moments[300] = dataclasses.replace(moments[300], sent=moments[300].sent + 0.5)
    worst = extremes(SIM, moments)
    assert worst["worst_velocity"] > 2
    assert worst["worst_acceleration"] > 2


def test_an_overtaken_plan_is_never_the_newest() -> None:
    came = [(0.0, 0, 1.0), (0.1, 2, 3.0), (0.2, 1, 2.0)]
    np.testing.assert_array_equal(newest_end_s(np.array([-1.0, 0.05, 0.15, 0.25]), came), [-np.inf, 1.0, 3.0, 3.0])


def test_the_way_home_is_timed_from_the_last_plan_to_joints_that_stay_at_neutral() -> None:
    moments = perfect()
    home = np.zeros(len(SIM.names))
    moments = [m if m.now_s < 4.0 else dataclasses.replace(m, sensed=Feedback(m.now_s, home, home)) for m in moments]
    came = [row for row in CAME if row[0] <= 3.0]
    assert home_after_s(moments, came) == pytest.approx(4.0 - came[-1][0], abs=0.04)


GOOD: dict[str, Any] = {
    "taken": 900, "late": 0, "old": 0, "replaced": 0, "lost": 0, "overtaken": 0, "frozen_with_plan": 0,
    "ticks_without_plan": 0, "replayed_late": 0, "worst_velocity": 1.0, "worst_acceleration": 0.9,
    "tracking_rms": 0.04, "clock_error_ms": None, "home_after_s": 1.0,
}  # fmt: skip
BROKEN = [
    {"frozen_with_plan": 1},
    {"replayed_late": 1},
    {"worst_velocity": 1.01},
    {"worst_acceleration": 1.01},
    {"home_after_s": 1.6},
    {"clock_error_ms": -30.0},
    {"taken": 800},
]


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: next(iter(fault)))
def test_each_broken_promise_is_a_verdict_of_its_own(fault: dict[str, Any]) -> None:
    assert all(verdicts({"clean": GOOD, "bad": GOOD}, ["clean"], plans=900).values())
    said = verdicts({"clean": GOOD | fault, "bad": GOOD}, ["clean"], plans=900)
    assert list(said.values()).count(False) == 1


def test_plans_that_a_bad_network_loses_break_no_promise() -> None:
    assert all(verdicts({"clean": GOOD, "bad": GOOD | {"taken": 600}}, ["clean"], plans=900).values())


@pytest.mark.parametrize(("fault", "status"), [({}, 0), ({"replayed_late": 3}, 1)])
def test_the_benchmark_ends_by_its_verdicts_and_its_results_can_be_shown(
    fault: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(network, "run", lambda name, _: GOOD | (fault if name == "stream" else {}))
    monkeypatch.setattr(network, "formats", dict)
    assert network.main([]) == status
    said = capsys.readouterr().out
    assert ("BROKEN nothing is replayed late" in said) == bool(status)
    report = json.loads(said.splitlines()[-1])
    assert "an outage of 400 ms" in loop_figures.network(report)
