"""In real time the simulated head lives in a thread of its own: by itself, on time, and no longer than it may."""

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import physics
from deploy.calibration import Calibration
from deploy.head.model import DEAD_TIME_S, STEP_S, TIME_CONSTANT_S
from deploy.head.pacer import BATCH_S, Pacer
from deploy.head.physics import Physics
from deploy.link import LocalLink
from deploy.motion.wire import Wire
from deploy.plan import Command
from deploy.robots import Feedback, RobotLost
from deploy.robots.sim import SimRobot, make
from dyad.clock import Clock, FakeClock, MonotonicClock

SIM = Calibration.load("sim")
SMILE = SIM.position("corner_up_left")
PATIENCE_S = 20.0


class HeldClock(MonotonicClock):
    """A machine's clock that a test moves; whoever sleeps on it is waited for."""

    def __init__(self) -> None:
        self._now_s, self._asleep_until_s, self._ended = 100.0, -np.inf, False
        self._turn = threading.Condition()

    def now_s(self) -> float:
        return self._now_s

    def sleep_until(self, time_s: float) -> None:
        with self._turn:
            self._asleep_until_s = time_s
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._now_s >= time_s or self._ended)

    def wake(self, time_s: float) -> None:
        """It is so late now; returns at once."""
        with self._turn:
            self._now_s = time_s
            self._turn.notify_all()

    def move_to(self, time_s: float) -> None:
        """It is so late now, and whoever had to wake has done what was due."""
        with self._turn:
            self._turn.wait_for(lambda: self._asleep_until_s >= self._now_s, PATIENCE_S)
        self.wake(time_s)
        with self._turn:
            assert self._turn.wait_for(lambda: self._asleep_until_s > time_s, PATIENCE_S), "the thread does not sleep"

    def end(self) -> None:
        """Nobody sleeps any longer."""
        with self._turn:
            self._ended = True
            self._turn.notify_all()


@pytest.fixture
def clock() -> Iterator[HeldClock]:
    held = HeldClock()
    yield held
    held.end()


@pytest.fixture
def head(clock: HeldClock) -> Iterator[SimRobot]:
    robot = opened(clock)
    yield robot
    clock.end()
    robot.close()


def opened(clock: Clock) -> SimRobot:
    robot = make(SIM, "")
    robot.live_by(clock)
    robot.open()
    return robot


def pacer_of(robot: SimRobot) -> Pacer:
    assert robot.pacer is not None
    return robot.pacer


def pose(share: float, seq: int = 0) -> Command:
    return Command(seq, 0.0, np.full(len(SIM.names), share))


def physics_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "physics"]


def test_the_head_moves_on_though_nobody_talks_to_it(clock: HeldClock, head: SimRobot) -> None:
    head.send(pose(0.8), clock.now_s())
    clock.move_to(100.4)
    said = head._opened().reading()
    assert SIM.shares_of(said[1])[SMILE] == pytest.approx(0.8, abs=0.02), "it went there before anyone asked"
    assert pacer_of(head).steps == 200


def test_on_the_machines_own_clock_it_moves_too_and_no_reading_is_of_the_future() -> None:
    clock, seen = MonotonicClock(), list[Feedback]()
    robot = opened(clock)
    robot.send(pose(0.8), clock.now_s())
    until_s = clock.now_s() + PATIENCE_S
    while not seen or (seen[-1].shares[SMILE] < 0.7 and clock.now_s() < until_s):
        seen.append(robot.feedback(clock.now_s()))
        assert seen[-1].time_s <= clock.now_s()
    robot.close()
    assert seen[-1].shares[SMILE] >= 0.7
    assert (np.diff([f.time_s for f in seen]) >= 0).all()


def asked(robot: SimRobot, times_s: NDArray[np.float64], clock: HeldClock | None) -> list[Feedback]:
    """Random poses at these times, each followed by a look at the sensors; a held clock goes along."""
    rng, seen = np.random.default_rng(1), list[Feedback]()
    for seq, now_s in enumerate(times_s):
        if clock is not None:
            clock.move_to(now_s)
        robot.send(Command(seq, now_s, rng.uniform(-0.5, 0.5, len(SIM.names))), now_s)
        seen.append(robot.feedback(now_s))
    return seen


def test_the_same_commands_give_the_same_motion_with_a_thread_and_without(clock: HeldClock, head: SimRobot) -> None:
    times_s = 100.0 + np.cumsum(np.random.default_rng(0).uniform(1, 40, 100).round()) * STEP_S
    plain = make(SIM, "")
    plain.open()
    plain.advance(100.0)
    for alone, driven in zip(asked(head, times_s, clock), asked(plain, times_s, None), strict=True):
        np.testing.assert_array_equal(alone.joints, driven.joints)
        assert driven.time_s - 2 * STEP_S <= alone.time_s <= driven.time_s


def test_a_thread_that_comes_late_applies_every_command_at_its_own_time(clock: HeldClock, head: SimRobot) -> None:
    plain = make(SIM, "")
    plain.open()
    plain.advance(100.0)
    for seq in range(8):  # all of these come while the thread does not run
        for robot in (head, plain):
            robot.send(pose(0.1 * seq, seq), 100.0 + 0.02 * seq)
    assert not head.feedback(100.14).joints.any(), "the thread has not run"
    clock.move_to(100.2)
    np.testing.assert_array_equal(head.feedback(100.2).joints, plain.feedback(100.2).joints)


def test_a_command_waits_for_its_own_time() -> None:
    early, then = Physics(DEAD_TIME_S, TIME_CONSTANT_S), Physics(DEAD_TIME_S, TIME_CONSTANT_S)
    for one in (early, then):
        one.advance(0.0)
    early.command(np.full(len(SIM.names), 0.005), 0.1)
    then.advance(0.1)
    then.command(np.full(len(SIM.names), 0.005), 0.1)
    for until_s in (0.05, 0.3):
        early.advance(until_s)
    then.advance(0.3)
    assert early.reading()[1].any()
    np.testing.assert_array_equal(early.reading()[1], then.reading()[1])


def test_readings_bear_the_time_that_they_are_of(clock: HeldClock, head: SimRobot) -> None:
    plain = make(SIM, "")
    plain.open()
    plain.advance(100.0)
    for robot in (head, plain):
        robot.send(pose(0.5), 100.0)
    for now_s in np.arange(100.05, 100.15, 0.0037).tolist():
        clock.move_to(now_s)
        felt = head.feedback(now_s)
        assert now_s - 2 * STEP_S - 1e-9 <= felt.time_s <= now_s
        truth = plain.feedback(felt.time_s + STEP_S + 1e-6).joints  # made on the step that begins then
        np.testing.assert_array_equal(felt.joints, truth)


def test_late_steps_are_counted_and_made_up_for_in_short_batches(clock: HeldClock, head: SimRobot) -> None:
    pacer, made = pacer_of(head), list[float]()
    physics, advance = head._opened(), head._opened().advance
    physics.advance = lambda until_s: (made.append(until_s), advance(until_s))[1]  # type: ignore[method-assign]
    clock.move_to(100.0 + STEP_S)
    assert pacer.late_steps == 0
    clock.move_to(100.0 + STEP_S + 0.3)
    assert pacer.steps == 151
    assert pacer.late_steps == 149
    assert pacer.worst_late_s == pytest.approx(0.3 - STEP_S)
    assert np.diff(made).max() <= BATCH_S + 1e-9
    assert made[-1] == clock.now_s()


def test_an_end_does_not_wait_for_what_there_is_to_make_up_for(clock: HeldClock, head: SimRobot) -> None:
    pacer, made = pacer_of(head), list[float]()
    physics = head._opened()
    physics.advance = lambda until_s: (made.append(until_s), pacer.ask_to_end())[1]  # type: ignore[method-assign]
    clock.wake(1000.0)
    pacer._thread.join(PATIENCE_S)
    assert not pacer.alive
    assert len(made) == 1


@pytest.mark.parametrize("own_thread", [True, False])
def test_servos_that_become_late_while_they_hold_a_pose_do_not_move(clock: HeldClock, own_thread: bool) -> None:
    robot = opened(clock if own_thread else FakeClock())
    move_to = clock.move_to if own_thread else lambda _: None
    robot.send(pose(0.3), 100.0)
    before = [robot.feedback(t).shares for t in (100.0, 101.0) if move_to(t) is None][-1]
    robot.be_late(0.2)
    after = [robot.feedback(t).shares for t in np.arange(101.0, 101.5, 0.01).tolist() if move_to(t) is None]
    clock.end()
    robot.close()
    assert np.abs(before).max() > 0.2
    assert np.abs(np.array(after) - before).max() < 1e-3


def test_the_thread_ends_with_close_and_another_open_begins_anew() -> None:
    clock, before = MonotonicClock(), len(physics_threads())
    robot = opened(clock)
    for _ in range(2):
        assert len(physics_threads()) == before + 1
        robot.open()
    assert len(physics_threads()) == before + 1, "the one before has ended"
    for _ in range(2):
        robot.close()
        assert len(physics_threads()) == before


def test_a_head_that_is_forgotten_takes_its_thread_along() -> None:
    thread = pacer_of(opened(MonotonicClock()))._thread
    gc.collect()
    assert not thread.is_alive(), "it was waited for: an interpreter that exits must not catch it inside a step"


def test_only_the_machines_clock_gives_it_a_thread() -> None:
    before = len(physics_threads())
    for clock, more in ((FakeClock(), 0), (MonotonicClock(), 1)):
        link = LocalLink(make(SIM, ""), clock)
        link.open(clock.now_s())
        assert len(physics_threads()) == before + more
        link.close(home=True)
        assert len(physics_threads()) == before


def test_a_head_that_is_not_open_says_so() -> None:
    robot = make(SIM, "")
    for _ in range(2):
        for ask in (lambda: robot.send(pose(0.0), 0.0), lambda: robot.feedback(0.0)):
            with pytest.raises(RobotLost, match="robot sim is not open"):
                ask()
        robot.open()
        robot.close()


def broken(robot: SimRobot, clock: HeldClock | None, now_s: float) -> None:
    """Make the physics fail, as MuJoCo itself does when a number overflows."""
    robot._opened()._data.qpos[3] = np.nan
    if clock is not None:
        clock.wake(now_s)
        pacer_of(robot)._thread.join(PATIENCE_S)


@pytest.mark.parametrize("own_thread", [True, False])
def test_physics_that_breaks_is_a_lost_robot_until_it_is_opened_again(
    clock: HeldClock, own_thread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log there
    robot = opened(clock if own_thread else FakeClock())
    if own_thread:
        clock.move_to(100.05)
    for now_s in (100.0, 100.05):
        robot.feedback(now_s)
    broken(robot, clock if own_thread else None, 100.1)
    with pytest.raises(RobotLost, match=r"robot sim: its physics .*unstable 0\.\d+ s after its start.*open it again$"):
        robot.send(pose(0.1), 100.1)
    robot.release()
    robot.open()
    assert not robot.feedback(100.1).joints.any()
    clock.end()
    robot.close()


def test_whatever_breaks_in_the_thread_reaches_the_wire_which_opens_the_head_again(
    clock: HeldClock, head: SimRobot
) -> None:
    def fail(_: float) -> Any:
        raise MemoryError("no more")

    wire, lost = Wire(head), pacer_of(head)
    head._opened().advance = fail  # type: ignore[method-assign]
    clock.wake(100.1)
    lost._thread.join(PATIENCE_S)
    assert wire.sense(100.1) is None
    assert wire.lost
    with pytest.raises(RobotLost, match=r"^robot sim: its physics has ended \(MemoryError: no more\); open it again$"):
        head.feedback(100.1)
    assert wire.reopen(100.7)
    assert pacer_of(head).alive
    assert wire.sense(100.7) is not None


def figures_of(**change: float) -> dict[str, Any]:
    """A benchmark's figures that keep every promise, but for `change` of the head with a thread."""
    asked = {"dead_time_idle_ms": 43.9, "glass_to_motor_ms": 155.0, "tick_p99_ms": 2.0, "frames_missed": 0}
    alone = asked | {"dead_time_idle_ms": 41.0, "late_steps_share": 0.02, "worst_step_late_ms": 8.0} | change
    return {"ways": {"own thread": alone, "on demand": asked}, "set_dead_time_ms": 40.0}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, ""),
        ({"dead_time_idle_ms": 44.1}, "dead time"),
        ({"dead_time_idle_ms": 35.0}, "dead time"),
        ({"glass_to_motor_ms": 159.0}, "glass to motor"),
        ({"late_steps_share": 0.06}, "on time"),
        ({"worst_step_late_ms": 17.0}, "on time"),
        ({"tick_p99_ms": 2.5}, "p99"),
        ({"frames_missed": 1}, "missed"),
    ],
)
def test_the_benchmark_says_which_promise_of_the_thread_was_broken(change: dict[str, float], broken: str) -> None:
    unkept = [promise for promise, kept in physics.verdicts(figures_of(**change)).items() if not kept]
    assert len(unkept) == bool(broken)
    assert all(broken in promise for promise in unkept)
