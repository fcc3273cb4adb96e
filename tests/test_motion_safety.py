"""Whatever comes in, at whatever moment: limits hold, neutral is reached in time, nothing outdated is replayed."""

import dataclasses
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_robot import CALIBRATION, Path, ToyRobot, exceeded, face, plan_of, unbroken

from deploy.motion.controller import Controller, Moment, MotionConfig
from deploy.motion.rhythm import STALL_S
from dyad.clock import FRAME_S

C = len(CALIBRATION.names)
LOW = np.where(CALIBRATION.one_way, 0.0, -1.0)
WITHIN = 1 + 1e-6
FIRST_STEP = float((CALIBRATION.limits[2] * CALIBRATION.rate_hz**-3 / 6).max()) + 1e-9
"""How far a motion from rest comes in its first tick, at most."""
SPOILT = ("nan", "range", "shape", "late", "old", "far")
EVENTS = ("random", "same", *SPOILT, "nothing", "nothing", "stop", "rearm", "break", "mend")
steps = st.tuples(
    st.sampled_from(EVENTS),
    st.integers(1, 30),
    st.sampled_from([1 / 60, 1e-3, 1 / 30, 0.07, 0.3]) | st.floats(1e-3, 0.079),
    st.integers(0, 2**31),
)


class Rig:
    """A controller among mishaps."""

    def __init__(self, pose: list[float], smoothing: Any) -> None:
        self.robot = ToyRobot()
        self.robot.pose = np.array(pose)
        self.moments: list[Moment] = []
        self.controller = Controller(self.robot, MotionConfig(smoothing=smoothing), watch=self.moments.append)
        self.now_s, self.seq, self.stopped = 5.0, 0, False
        self.last_taken_s: float | None = None
        self.verdicts: list[str] = []
        self.releases_due = 0
        self.restarts: list[float] = []
        self.controller.start(self.now_s)

    def happen(self, event: str, ticks: int, dt_s: float, seed: int) -> None:
        """One mishap, then some ticks of one length; plans come at every second tick, at most at 60 Hz."""
        if event == "stop" and not self.stopped:
            self.stopped = True
            self.controller.stop("test", self.now_s)
        elif event == "rearm":
            self.stopped = False
            self.controller.rearm(self.now_s)
        elif event in ("break", "mend"):
            self.robot.broken = event == "break"
        rng = np.random.default_rng(seed)
        for tick in range(ticks):
            self.now_s += dt_s
            if tick % 2 == 0 and event not in ("nothing", "stop", "rearm", "break", "mend"):
                self.offer(event, rng)
            self.controller.tick(self.now_s)

    def offer(self, event: str, rng: np.random.Generator) -> None:
        rows = rng.random((9, 17)).astype(np.float32) if event != "same" else face(AU12=1.0, AU1=1.0, AU25=1.0)
        captured_s = self.now_s - rng.uniform(0, 0.1)
        plan = plan_of(rows, self.seq, captured_s)
        spoilt: dict[str, dict[str, Any]] = {
            "nan": {"au": np.where(rng.random((9, 17)) < 0.1, np.nan, plan.au).astype(np.float32)},
            "range": {"au": plan.au * np.float32(1.5) + np.float32(0.6)},
            "shape": {"au": plan.au[:, :5]},
            "late": {"target_times_s": plan.target_times_s - 1.0},
            "old": {"seq": self.seq - 3},
            "far": {"target_times_s": plan.target_times_s + 3.0},
        }
        verdict = self.controller.offer(dataclasses.replace(plan, **spoilt.get(event, {})), self.now_s)
        self.verdicts.append(verdict)
        if verdict == "taken":
            assert event in ("random", "same", "old")
            self.last_taken_s = self.now_s
        self.seq += 1


def parts_of(path: Path, moments: list[Moment]) -> list[Path]:
    """What was sent, cut where motion rightly began anew from rest: after a stall and after the robot was away."""
    away = [m.now_s for m in moments if m.state in ("lost", "released")]
    parts: list[Path] = []
    for part in unbroken(path, STALL_S):
        begun = 0
        for i in range(1, len(part)):
            if any(part[i - 1][0] <= at_s <= part[i][0] for at_s in away):
                parts.append(part[begun:i])
                begun = i
        parts.append(part[begun:])
    return [part for part in parts if part]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-1.2, 1.2), min_size=C, max_size=C),
    st.sampled_from(["one-euro", "kalman", "none"]),
    st.lists(steps, min_size=1, max_size=14),
)
def test_no_limit_is_ever_exceeded_whatever_happens_when(
    pose: list[float], smoothing: str, script: list[tuple[str, int, float, int]]
) -> None:
    rig = Rig(pose, smoothing)
    for step in script:
        rig.happen(*step)
    levels = np.array([x for _, x in rig.robot.sent]).reshape(-1, C)
    assert np.isfinite(levels).all()
    assert (levels >= LOW).all()
    assert (levels <= 1).all()
    for part in parts_of(rig.robot.sent, rig.moments):
        assert max(exceeded(part)) <= WITHIN
    counts = rig.controller.status(rig.now_s).counts
    assert (counts.taken, counts.refused, counts.late, counts.old) == tuple(
        rig.verdicts.count(v) for v in ("taken", "refused", "late", "old")
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(steps, max_size=8), st.floats(0.008, 0.03))
def test_neutral_is_reached_in_time_after_the_last_valid_plan_whatever_came_before_and_comes_after(
    script: list[tuple[str, int, float, int]], dt_s: float
) -> None:
    rig = Rig([0.0] * C, "one-euro")
    for event, ticks, _, seed in script:
        rig.happen(event if event not in ("break", "stop", "rearm", "mend") else "random", ticks, dt_s, seed)
    rig.happen("random", 9, dt_s, 0)
    assert rig.last_taken_s is not None
    for event in (*SPOILT[:4], "far", "nothing"):  # none of these keeps a face alive
        rig.happen(event, 50, dt_s, 1)
    out = [t for t, x in rig.robot.sent if np.abs(x).max() > 1e-6]
    assert max(out) + rig.robot.lag_s - rig.last_taken_s <= 1.5
    assert rig.now_s - rig.last_taken_s > 1.5


@settings(max_examples=30, deadline=None)
@given(st.lists(steps, max_size=8), st.floats(0.008, 0.03), st.integers(0, 3))
def test_a_stop_at_any_moment_goes_home_and_lets_go_exactly_once(
    script: list[tuple[str, int, float, int]], dt_s: float, again: int
) -> None:
    rig = Rig([0.0] * C, "one-euro")
    for event, ticks, dt, seed in script:
        rig.happen(event if event not in ("stop", "rearm") else "random", ticks, dt, seed)
    rig.robot.broken = False
    for _ in range(60 * 9):  # a robot that was lost may have to be waited for
        rig.happen("random", 1, 1 / 60, 2)
    for _ in range(again + 1):
        before = rig.robot.released
        rig.happen("stop", 30, dt_s, 0)
        for _ in range(60 * 2):
            rig.happen("random", 1, 1 / 60, 2)
        assert rig.controller.status(rig.now_s).state == "released"
        assert rig.robot.released == before + 1
        np.testing.assert_allclose(rig.robot.sent[-1][1], 0, atol=1e-6)
        assert rig.verdicts[-1] == "refused"
        rig.happen("rearm", 2, dt_s, 0)
        rig.happen("random", 20, dt_s, 0)
        assert rig.controller.status(rig.now_s).state == "following"


@settings(max_examples=30, deadline=None)
@given(st.lists(steps, max_size=10))
def test_what_is_lost_while_stopped_is_sent_nothing_until_rearmed(script: list[tuple[str, int, float, int]]) -> None:
    rig = Rig([0.0] * C, "one-euro")
    rig.happen("random", 20, 1 / 60, 0)
    rig.happen("stop", 2, 1 / 60, 0)
    rig.happen("break", 2, 1 / 60, 0)
    n_sent, opened = len(rig.robot.sent), rig.robot.opened
    for event, ticks, dt_s, seed in script:
        rig.happen(event if event not in ("rearm", "break") else "mend", ticks, dt_s, seed)
    rig.happen("mend", 30, 0.3, 0)
    assert (len(rig.robot.sent), rig.robot.opened) == (n_sent, opened)


def test_motion_begins_anew_from_the_pose_that_was_last_sent_or_measured() -> None:
    for away_s in (0.1, 0.4, 3.0):
        rig = Rig([0.0] * C, "one-euro")
        rig.happen("random", 40, 1 / 60, 3)
        before = rig.robot.sent[-1][1]
        rig.now_s += away_s
        rig.happen("random", 1, 1 / 60, 4)
        assert np.abs(rig.robot.sent[-1][1] - before).max() <= FIRST_STEP


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.booleans())
@example(74980273, False)  # a bad lesson of the lag meter, which must not lower the rate
def test_over_a_bad_network_nothing_freezes_nothing_old_is_shown_and_limits_hold(seed: int, blend: bool) -> None:
    """10–100 ms of jitter with what it reorders, 2 % loss, an outage of 400 ms; the speaker's level says which plan."""
    rng, robot, moments = np.random.default_rng(seed), ToyRobot(), list[Moment]()
    config = MotionConfig(blend_s=0.05 if blend else 0.0)
    controller = Controller(robot, config, watch=moments.append)
    controller.start(0.0)
    outage_s = rng.uniform(2, 5)
    packets = []
    for seq in range(210):
        sent_s = seq * FRAME_S
        at_s = sent_s + (np.arange(9) + 0.5) * FRAME_S
        rows = np.stack([face(AU12=0.5 + 0.4 * np.sin(4 * t)) for t in at_s])
        if rng.random() > 0.02 and not outage_s <= sent_s < outage_s + 0.4:
            packets.append((sent_s + rng.uniform(0.01, 0.1), plan_of(rows, seq, sent_s, target_times_s=at_s)))
    packets.sort(key=lambda p: p[0])
    newest, ends_s, checked = -1, -np.inf, 0
    corner = CALIBRATION.position("corner")
    previous = None
    for tick in range(1, 7 * 60):
        now_s = tick / 60
        while packets and packets[0][0] <= now_s:
            _, plan = packets.pop(0)
            verdict = controller.offer(plan, now_s)
            assert verdict == ("old" if plan.seq <= newest else "taken")
            if verdict == "taken":
                newest, ends_s = plan.seq, plan.target_times_s[-1]
        controller.tick(now_s)
        moment, ahead_s = moments[-1], controller.status(now_s).look_ahead_s
        if ends_s > now_s + ahead_s:  # plan remains: the intended pose is the plan's for that moment, and it moves
            checked += 1
            assert moment.state == "following"
            assert abs(moment.goal[corner] - (0.5 + 0.4 * np.sin(4 * moment.target_time_s))) < 5e-3
            assert moment.target_time_s > now_s
            assert previous is None or np.abs(moment.goal - previous).max() > 0
        previous = moment.goal
    assert checked > 250
    assert max(exceeded(robot.sent)) <= WITHIN
