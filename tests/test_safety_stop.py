"""Whatever breaks, the face goes home within its limits, is let go, and the error is not lost."""

import contextlib
import json
import os
import pty
import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deploy.calibration import Calibration
from deploy.controller import Post
from deploy.link import LocalLink
from deploy.motion import heart as heart_module
from deploy.motion.heart import Heart
from deploy.motion.rhythm import SHIFT
from deploy.plan import AUPlan, Command
from deploy.robots import RobotLost
from deploy.safety import way_home
from deploy.safety.black_box import BlackBox
from deploy.safety.estop import KeyStop
from deploy.safety.signals import ENDING, SUSPENDING, Ended, EndSignals
from dyad.clock import FakeClock, MonotonicClock

SIM = Calibration.load("sim")
C = len(SIM.names)
STRONG = np.tile(np.array([0.9] * 17, np.float32), (9, 1))


class Notebook:
    """A robot that writes down what it is told; `broken` makes its wire fail."""

    def __init__(self, calibration: Calibration = SIM) -> None:
        self.calibration = calibration
        self.sent: list[tuple[float, np.ndarray]] = []
        self.told = ""
        self.broken = False

    def open(self) -> None:
        self.told += "open "

    def send(self, command: Command, now_s: float) -> Command:
        if self.broken:
            raise RobotLost("unplugged")
        self.sent.append((now_s, np.array(command.shares)))
        return command

    def feedback(self, now_s: float) -> None:
        return None

    def release(self) -> None:
        self.told += "release "

    def close(self) -> None:
        self.told += "close "


class Breakable:
    """A link on a fake clock whose controller can be made to fail in any call."""

    def __init__(self) -> None:
        self.clock, self.robot = FakeClock(), Notebook()
        self.link = LocalLink(self.robot, self.clock)
        self.link.open(0.0)

    def play(self, frames: int) -> None:
        """So many plans of a strong expression."""
        for _ in range(frames):
            self.clock.advance(1 / 30)
            now_s = self.clock.now_s()
            plan = AUPlan(int(now_s * 1000), now_s, now_s + np.arange(9) / 30, STRONG, STRONG)
            self.link.deliver(plan)


def worst(sent: list[tuple[float, np.ndarray]]) -> tuple[float, float]:
    """Largest velocity and acceleration as shares of the limits."""
    times, shares = np.array([t for t, _ in sent]), np.array([s for _, s in sent])
    steps = np.diff(times)
    speed = np.diff(shares, axis=0) / steps[:, None]
    push = np.diff(speed, axis=0) / ((steps[1:] + steps[:-1]) / 2)[:, None]
    v_max, a_max, _ = SIM.limits
    return float((np.abs(speed) / v_max).max()), float((np.abs(push) / a_max).max())


def test_the_end_of_a_run_is_home_then_release_then_close() -> None:
    run = Breakable()
    run.play(60)
    assert np.abs(run.robot.sent[-1][1]).max() > 0.5
    before_s = run.clock.now_s()
    run.link.close(home=True)
    assert run.robot.told == "open release close "
    assert np.abs(run.robot.sent[-1][1]).max() < 1e-6
    assert run.robot.sent[-1][0] - before_s <= 1.5
    run.link.close(home=True)
    assert run.robot.told == "open release close "


@pytest.mark.parametrize("call", ["tick", "stop"])
@pytest.mark.parametrize("frames", [0, 2, 4, 60])
def test_a_controller_that_fails_leaves_the_face_at_home_within_its_limits(
    monkeypatch: pytest.MonkeyPatch, call: str, frames: int
) -> None:
    run = Breakable()
    run.play(frames)

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(run.link.controller, call, fail)
    if call == "tick":
        with pytest.raises(ZeroDivisionError):
            run.play(2)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        run.link.close(home=True)
    assert run.robot.told == "open release close "
    if run.robot.sent:
        assert np.abs(run.robot.sent[-1][1]).max() < 1e-6
        assert max(worst(run.robot.sent)) <= 1 + 1e-6


def test_a_robot_that_is_gone_is_not_waited_for_longer_than_its_time() -> None:
    run = Breakable()
    run.play(30)
    run.robot.broken = True
    before_s = run.clock.now_s()
    run.link.close(home=True)
    assert run.clock.now_s() - before_s <= 1.6
    assert run.robot.told.endswith("release close ")


def test_an_exception_in_the_hearts_own_thread_sends_the_face_home_and_reaches_whoever_joins() -> None:
    robot, clock = Notebook(), MonotonicClock()
    link = LocalLink(robot, clock)
    link.open(clock.now_s())
    done = threading.Event()
    real, robot.release = robot.release, lambda: (real(), done.set())[0]  # type: ignore[method-assign]

    def fail(_: float) -> Command:
        raise ZeroDivisionError("a mistake of ours")

    moved = iter(range(10))
    while next(moved, None) is not None:
        now_s = clock.now_s()
        link.deliver(AUPlan(int(now_s * 1e6), now_s, now_s + np.arange(9) / 30, STRONG, STRONG))
        done.wait(0.03)
    link.controller.tick = fail  # type: ignore[method-assign]
    assert done.wait(5.0)
    assert np.abs(robot.sent[-1][1]).max() < 1e-6
    assert not link.heart.alive
    with pytest.raises(ZeroDivisionError):
        link.deliver(AUPlan(0, 0.0, np.arange(9) / 30, STRONG, STRONG))
    with pytest.raises(ZeroDivisionError):
        link.close(home=True)
    assert robot.told == "open release close "


def test_a_loop_that_hangs_does_not_keep_the_face_from_going_home(tmp_path: Path) -> None:
    robot, clock = Notebook(), MonotonicClock()
    box = BlackBox(tmp_path, clock, robot="sim", channels=SIM.names, rate_hz=SIM.rate_hz)
    link = LocalLink(robot, clock, box=box)
    link.open(clock.now_s())
    end_s = clock.now_s() + 0.3
    while (now_s := clock.now_s()) < end_s:
        link.deliver(AUPlan(int(now_s * 1e6), now_s, now_s + np.arange(9) / 30, STRONG, STRONG))
        clock.sleep_until(now_s + 1 / 30)
    while link.status().state != "neutral" and clock.now_s() < end_s + 10:
        sum(range(10000))  # an engine that never comes back, and never lets the interpreter go
    assert np.abs([s for _, s in robot.sent]).max() > 0.3
    assert np.abs(robot.sent[-1][1]).max() < 1e-6
    link.close(home=True)
    box.close()
    assert [json.loads(p.read_text(encoding="utf8").splitlines()[0])["fault"] for p in box.files] == [
        "no plans: the loop fell silent"
    ]


def test_a_wire_that_never_answers_is_named_and_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((heart_module, "PATIENCE_S"), (way_home, "LONGEST_S")):
        monkeypatch.setattr(module, name, 0.1)
    robot, clock, stuck = Notebook(), MonotonicClock(), threading.Event()
    monkeypatch.setattr(robot, "send", lambda *_: stuck.wait(20))
    link = LocalLink(robot, clock)
    link.open(clock.now_s())
    with pytest.raises(RuntimeError, match="takes no answer; cut its power"):
        link.heart.stop_and_home(0.1)
    stuck.set()


def test_a_robot_that_cannot_be_opened_is_given_back_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Notebook()

    def fail() -> None:
        raise ValueError("no such device")

    monkeypatch.setattr(robot, "open", fail)
    link = LocalLink(robot, FakeClock())
    with pytest.raises(ValueError, match="no such device"):
        link.open(0.0)
    link.close(home=True)
    assert robot.told == "close "
    assert robot.sent == []


def test_a_stopped_robot_ignores_plans_until_it_is_armed() -> None:
    run = Breakable()
    run.play(30)
    run.link.stop("smoke")
    run.play(60)
    assert run.link.status().state == "released"
    assert run.link.status().stop_reason == "smoke"
    assert np.abs(run.robot.sent[-1][1]).max() < 1e-6
    run.link.heart.rearm()
    run.play(60)
    assert np.abs(run.robot.sent[-1][1]).max() > 0.5
    run.link.close(home=True)


def test_ticks_are_made_at_their_own_times_and_none_twice() -> None:
    run = Breakable()
    run.play(30)
    times = np.array([t for t, _ in run.robot.sent])
    np.testing.assert_allclose(np.diff(times), 1 / SIM.rate_hz, rtol=SHIFT + 1e-6)
    assert len(times) == pytest.approx(SIM.rate_hz, abs=1)
    run.link.close(home=True)


class Oversleeping(FakeClock):
    """A clock on which one sleep takes far too long."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0

    def sleep_until(self, time_s: float) -> None:
        self.slept += 1
        super().sleep_until(time_s + (0.5 if self.slept == 10 else 0.0))


def test_late_ticks_are_skipped_and_counted_never_made_up_for() -> None:
    clock, robot = Oversleeping(), Notebook()
    link = LocalLink(robot, clock)
    robot.open()
    heart = link.heart
    heart.start(thread=False)
    for _ in range(20):
        heart._wait()
        heart._beat(clock.now_s())
    assert heart.skipped_ticks == pytest.approx(0.5 * SIM.rate_hz, abs=1)
    assert len(robot.sent) == 20
    heart.stop_and_home()


shares = st.lists(st.floats(-1, 1), min_size=C, max_size=C).map(np.array)


@settings(max_examples=60, deadline=None)
@given(shares, shares, st.integers(0, 3))
def test_the_last_resort_reaches_neutral_from_any_pose_and_speed_within_the_limits(
    pose: np.ndarray, direction: np.ndarray, waited: int
) -> None:
    robot, clock, step_s = Notebook(), FakeClock(), 1 / SIM.rate_hz
    before, last = 0.8 * pose - direction * SIM.limits[0] * step_s, 0.8 * pose
    told = [(0.0, Command(0, 0.0, before)), (step_s, Command(1, step_s, last))]
    assume(np.abs(last).max() > way_home.AT_NEUTRAL or direction.any())
    clock.advance(step_s * (1 + waited))
    began_s = clock.now_s()
    assert way_home.go(robot, told, clock)
    assert clock.now_s() - began_s <= way_home.LONGEST_S
    np.testing.assert_array_equal(robot.sent[-1][1], 0)
    moving = waited <= way_home.STALE_PERIODS
    joined = [(t, c.shares) for t, c in told] if moving else [(clock.now_s() - 9.0, last)]
    assert max(worst(joined + robot.sent)) <= 1 + 1e-6


def test_the_last_resort_of_a_robot_that_was_never_moved_or_has_no_channels_is_nothing() -> None:
    assert way_home.go(Notebook(), [], FakeClock())
    at_home = Notebook()
    assert way_home.go(at_home, [(0.0, Command(0, 0.0, np.zeros(C)))], FakeClock())
    assert at_home.sent == [], "it may have been let go already"
    none = Calibration.load("null")
    if not none.names:
        assert way_home.go(Notebook(none), [(0.0, Command(0, 0.0, np.zeros(0)))], FakeClock())


@pytest.fixture
def handlers() -> Iterator[None]:
    before = [signal.getsignal(n) for n in (*ENDING, *SUSPENDING)]
    yield
    assert [signal.getsignal(n) for n in (*ENDING, *SUSPENDING)] == before


STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGQUIT": 131, "SIGTSTP": 128 + signal.SIGTSTP}


@pytest.mark.parametrize(("number", "status"), [(getattr(signal, name), n) for name, n in STATUS.items()], ids=STATUS)
def test_the_first_signal_counts_and_further_ones_change_nothing(handlers: None, number: int, status: int) -> None:
    with EndSignals() as signals:
        assert not signals.wait(0.0)
        os.kill(os.getpid(), number)
        assert signals.wait(5.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.exit_status == status
        assert signals.name == signal.Signals(number).name


def test_where_work_cannot_be_asked_to_stop_the_first_signal_raises_once(handlers: None) -> None:
    with EndSignals() as signals:
        with pytest.raises(Ended), signals.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.exit_status == 143


def test_a_signal_before_or_after_such_work_cuts_nothing_else_short(handlers: None) -> None:
    with EndSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)  # while the robot is being opened
        with pytest.raises(Ended), signals.interruptible():
            pytest.fail("the work has begun")
    with EndSignals() as signals:
        with signals.interruptible():
            pass
        os.kill(os.getpid(), signal.SIGINT)  # on the way home
        assert signals.exit_status == 130


def test_a_terminal_in_whose_background_the_process_is_does_not_suspend_it(handlers: None) -> None:
    with EndSignals():
        for number in SUSPENDING:
            os.kill(os.getpid(), number)
            assert signal.getsignal(number) == signal.SIG_IGN


class Diary:
    """Stands for one part of a post; closing it is written down, and may fail."""

    def __init__(self, name: str, done: list[str], broken: str) -> None:
        self._name, self._done, self._broken = name, done, broken

    def close(self, **_: Any) -> None:
        self._done.append(self._name)
        if self._name == self._broken:
            raise OSError("the terminal has gone")

    def fault(self, _: str) -> None:
        self._done.append("fault")


@pytest.mark.parametrize("broken", ["", "keys", "server", "http", "box"])
def test_a_post_goes_home_before_anything_that_could_fail_or_wait(broken: str) -> None:
    done: list[str] = []
    parts: Any = {name: Diary(name, done, broken) for name in ("link", "server", "http", "keys", "box")}
    with contextlib.suppress(OSError):
        Post(**parts).end("SIGHUP")
    assert done == ["fault", "server", "link", "keys", "http", "box"]


@pytest.mark.parametrize("failing", ["sensors", "thread"])
def test_a_heart_that_cannot_begin_leaves_the_robot_let_go_and_closed(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("it cannot begin")

    robot, clock = Notebook(), MonotonicClock()
    link = LocalLink(robot, clock)
    with monkeypatch.context() as patched:
        patched.setattr(*((link.controller, "start") if failing == "sensors" else (threading.Thread, "start")), fail)
        with pytest.raises(RuntimeError, match="it cannot begin"):
            link.open(clock.now_s())
    assert robot.told == "open release close "
    link.close(home=True)
    assert robot.told == "open release close "


def test_a_wire_that_is_being_opened_anew_is_waited_for_before_it_is_taken_for_stuck() -> None:
    """Three seconds to connect and three to be admitted, which no driver can cut short."""

    class Joined:
        def join(self, timeout: float) -> None:
            self.waited_s = timeout

        def is_alive(self) -> bool:
            return False

    robot, clock, thread = Notebook(), FakeClock(), Joined()
    heart = LocalLink(robot, clock).heart
    heart._thread = thread  # type: ignore[assignment]
    heart.stop_and_home()
    assert thread.waited_s >= heart_module.HOME_S + way_home.LONGEST_S + 6.0


def test_a_terminal_that_has_hung_up_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.safety.estop._in_foreground", lambda _: True)
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as terminal:
        keys = KeyStop(lambda _: None, terminal)
        keys.start()
        os.close(master)
        keys.close()
        assert not keys.listening


def test_a_machine_that_stalls_delays_the_last_resort_and_makes_no_jump_of_it() -> None:
    robot, clock = Notebook(), Oversleeping()
    assert way_home.go(robot, [(-1.0, Command(0, -1.0, np.full(C, 0.9)))], clock)
    steps = np.abs(np.diff([np.full(C, 0.9), *(shares for _, shares in robot.sent)], axis=0))
    assert clock.slept > 10
    assert (steps <= SIM.limits[0] * way_home.STALE_PERIODS / SIM.rate_hz * (1 + 1e-6)).all()
    np.testing.assert_array_equal(robot.sent[-1][1], 0)


def test_any_key_stops_and_the_terminal_is_given_back_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    import termios

    monkeypatch.setattr("deploy.safety.estop._in_foreground", lambda _: True)
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    came: queue.Queue[str] = queue.Queue()
    with os.fdopen(slave, "r") as terminal:
        keys = KeyStop(came.put, terminal)
        keys.start()
        assert keys.listening
        os.write(master, b" ")
        assert came.get(timeout=5) == "key ' '"
        keys.close()
        keys.close()
        assert termios.tcgetattr(slave) == before
    os.close(master)


def test_without_a_terminal_no_key_is_listened_to() -> None:
    with open(os.devnull, encoding="utf8") as nothing:  # noqa: PTH123
        keys = KeyStop(print, nothing)
        keys.start()
        assert not keys.listening
        keys.close()


def test_the_heart_beats_for_any_controller_at_the_robots_own_rate() -> None:
    clock, robot = FakeClock(), Notebook()
    heart = Heart(LocalLink(robot, clock).controller, robot, clock)
    heart.start(thread=False)
    heart.catch_up(1.0)
    assert len(heart.tick_ms) == pytest.approx(SIM.rate_hz, abs=1)
    assert heart.alive
    heart.stop_and_home()
    assert not heart.alive
