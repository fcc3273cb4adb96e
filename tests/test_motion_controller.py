"""One controller, one robot: it follows, holds, returns, stops, lets go, and finds a lost robot again."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_robot import CALIBRATION, ToyRobot, exceeded, face, plan_of

from deploy import robots
from deploy.calibration import Calibration
from deploy.motion.controller import Controller, Moment, MotionConfig
from deploy.motion.degrade import RATE_HZ
from deploy.plan import AUPlan
from dyad.clock import FRAME_S

TICK_S = 1 / 60
JAW, CORNER, NECK = (CALIBRATION.position(c) for c in ("jaw", "corner", "neck"))
SMILE = face(AU12=0.8, AU25=0.5)


class Stage:
    """A controller on a toy robot, a clock, and a sender at 30 Hz."""

    def __init__(self, robot: ToyRobot | None = None, config: MotionConfig | None = None) -> None:
        self.robot, self.moments = robot or ToyRobot(), list[Moment]()
        self.controller = Controller(self.robot, config, watch=self.moments.append)
        self.now_s, self.seq = 10.0, 0
        self.controller.start(self.now_s)

    def run(self, seconds: float, shows: NDArray[np.float32] | Callable[[float], AUPlan] | None = None) -> None:
        """Tick on; `shows`: a face sent as a plan with every second tick, or what makes a plan for a moment."""
        for tick in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            if shows is not None and tick % 2 == 0:
                plan = shows(self.now_s) if callable(shows) else plan_of(shows, self.seq, self.now_s)
                self.controller.offer(plan, self.now_s)
                self.seq += 1
            self.controller.tick(self.now_s)

    @property
    def state(self) -> str:
        return self.controller.status(self.now_s).state

    @property
    def sent(self) -> NDArray[np.float64]:
        return self.robot.sent[-1][1]


def test_before_the_first_plan_the_face_goes_from_where_it_is_to_neutral() -> None:
    robot = ToyRobot()
    robot.pose = np.array([0.8, 0.5, -0.7, 1.0, 0.3])
    stage = Stage(robot)
    stage.run(1.2)
    path = [(10.0, robot.pose), *robot.sent]
    assert np.abs(robot.sent[0][1] - robot.pose).max() < 0.01
    assert max(exceeded(path)) <= 1 + 1e-6
    np.testing.assert_allclose(stage.sent, 0, atol=1e-9)
    assert (stage.state, stage.controller.at_rest()) == ("waiting", True)


def test_a_plan_is_followed_to_the_pose_that_the_calibration_means() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    assert stage.state == "following"
    assert stage.sent[CORNER] == pytest.approx(0.8, abs=1e-3)
    assert stage.sent[NECK] == pytest.approx(0.5, abs=1e-3)
    assert not stage.controller.at_rest()


def test_a_lost_stream_is_held_briefly_then_left_for_neutral_within_a_second_and_a_half() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    last_s = stage.now_s
    stage.run(2.0)
    states = [m.state for m in stage.moments if m.now_s > last_s]
    order = list(dict.fromkeys(states))
    assert order == ["following", "holding", "returning", "neutral"]
    still_out_s = max(t for t, shares in stage.robot.sent if np.abs(shares).max() > 1e-6) - last_s
    assert still_out_s + stage.robot.lag_s <= 1.5
    assert max(exceeded(stage.robot.sent)) <= 1 + 1e-6
    assert stage.controller.status(stage.now_s).counts.gaps == 1
    stage.run(0.5, SMILE)
    assert stage.state == "following"


def test_the_way_home_is_slower_than_the_face_may_move() -> None:
    stage = Stage()
    stage.run(1.0, face(AU12=1.0))
    stage.run(2.0)
    at_s, shares = np.array([t for t, _ in stage.robot.sent]), np.array([x for _, x in stage.robot.sent])
    speed = np.abs(np.diff(shares[:, CORNER]) / np.diff(at_s))
    home = at_s[1:] > 11.1
    assert speed[home].max() < 0.5 * CALIBRATION.limits[0][CORNER]
    assert speed[~home].max() > speed[home].max()


def test_a_new_sender_is_heard_once_the_old_one_has_been_silent_long_enough() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    stage.seq = 0
    stage.run(0.5, SMILE)
    assert stage.controller.status(stage.now_s).counts.old == 15
    stage.run(2.0)
    stage.seq = 0
    stage.run(0.5, SMILE)
    assert stage.state == "following"


def test_an_emergency_stop_goes_home_lets_go_once_and_refuses_plans_until_rearmed() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    stage.controller.stop("red button", stage.now_s)
    stage.controller.stop("second thought", stage.now_s)
    stage.run(2.0, SMILE)
    status = stage.controller.status(stage.now_s)
    assert (status.state, status.stop_reason) == ("released", "red button")
    assert status.counts.refused == 60
    assert stage.robot.released == 1
    np.testing.assert_allclose(stage.sent, 0, atol=1e-9)
    assert max(exceeded(stage.robot.sent)) <= 1 + 1e-6
    n_sent = len(stage.robot.sent)
    stage.run(1.0, SMILE)
    assert len(stage.robot.sent) == n_sent, "a robot that was let go is not sent to"
    assert stage.controller.at_rest()


def test_a_rearmed_robot_is_opened_anew_and_follows_from_its_measured_pose() -> None:
    stage = Stage()
    stage.controller.stop("red button", stage.now_s)
    stage.run(1.0)
    stage.robot.sent.clear()
    stage.robot.pose = np.full(5, 0.3)  # somebody moved it by hand
    stage.controller.rearm(stage.now_s)
    stage.run(0.1)
    assert (stage.robot.closed, stage.robot.opened) == (1, 1)
    assert np.abs(stage.robot.sent[0][1] - 0.3).max() < 0.02
    stage.run(1.0, SMILE)
    assert stage.state == "following"
    assert stage.controller.status(stage.now_s).counts.reconnects == 0


def test_a_stop_right_after_arming_leaves_a_released_robot_released() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    stage.controller.stop("smoke", stage.now_s)
    stage.run(1.5)
    assert stage.state == "released"
    stage.controller.rearm(stage.now_s)
    stage.controller.stop("smoke again", stage.now_s)  # before any tick could open the robot
    sent = len(stage.robot.sent)
    stage.run(0.5, SMILE)
    assert (stage.state, len(stage.robot.sent)) == ("released", sent)
    assert stage.controller.at_rest()


def test_rearming_on_the_way_home_goes_on_from_there() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    stage.controller.stop("red button", stage.now_s)
    stage.run(0.2)
    stage.controller.rearm(stage.now_s)
    stage.run(1.0, SMILE)
    assert (stage.state, stage.robot.released, stage.robot.opened) == ("following", 0, 0)
    assert max(exceeded(stage.robot.sent)) <= 1 + 1e-6


def test_a_lost_robot_is_tried_again_with_growing_pauses_and_found_where_it_is() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    stage.robot.broken = True
    tries = []
    for _ in range(60 * 20):
        opened = stage.robot.opened
        stage.run(TICK_S, SMILE)
        if stage.robot.opened > opened:
            tries.append(stage.now_s)
    np.testing.assert_allclose(np.diff([11.0, *tries]), [0.5, 1, 2, 4, 8], atol=0.06)
    assert stage.state == "lost"
    assert not stage.controller.at_rest()
    stage.robot.broken = False
    stage.robot.sent.clear()
    stage.robot.pose = np.full(5, 0.2)
    stage.run(8.5, SMILE)
    assert np.abs(stage.robot.sent[0][1] - 0.2).max() < 0.02
    counts = stage.controller.status(stage.now_s).counts
    assert (counts.lost, counts.reconnects, stage.state) == (1, 1, "following")
    assert max(exceeded(stage.robot.sent)) <= 1 + 1e-6


def test_a_stop_while_the_robot_is_lost_leaves_it_alone_until_rearmed() -> None:
    stage = Stage()
    stage.run(1.0, SMILE)
    stage.robot.broken = True
    stage.run(0.1)
    stage.controller.stop("red button", stage.now_s)
    stage.robot.broken = False  # power is back, and a finger is still in the jaw
    n_sent = len(stage.robot.sent)
    stage.run(10.0, SMILE)
    assert (stage.state, stage.robot.opened, len(stage.robot.sent)) == ("lost", 0, n_sent)
    stage.controller.rearm(stage.now_s)
    stage.run(9.0, SMILE)
    assert (stage.state, stage.robot.opened) == ("following", 1)


@pytest.mark.parametrize("away_s", [0.1, 1.2])
def test_a_stopped_robot_whose_wire_breaks_is_neither_opened_nor_moved_by_its_return(away_s: float) -> None:
    """On the way home (0.1 s after the stop) and after it was let go (1.2 s after)."""
    stage = Stage()
    stage.run(1.0, SMILE)
    stage.controller.stop("red button", stage.now_s)
    stage.run(away_s)
    released, n_sent = stage.robot.released, len(stage.robot.sent)
    stage.robot.broken = True
    stage.run(0.5)
    stage.robot.broken = False
    stage.run(9.0, SMILE)
    assert (stage.robot.opened, stage.robot.released, len(stage.robot.sent)) == (0, released, n_sent)
    stage.controller.rearm(stage.now_s)
    stage.run(2.0, SMILE)
    assert (stage.state, stage.robot.opened) == ("following", 1)


def test_a_robot_without_sensors_that_comes_back_goes_on_from_its_last_command() -> None:
    stage = Stage(ToyRobot(senses=False))
    stage.run(1.0, SMILE)
    last = stage.sent.copy()
    stage.robot.broken = True
    stage.run(0.1)
    stage.robot.broken = False
    stage.robot.sent.clear()
    stage.run(1.0)
    assert np.abs(stage.robot.sent[0][1] - last).max() < 0.01
    assert max(exceeded([(stage.robot.sent[0][0] - TICK_S, last), *stage.robot.sent])) <= 1 + 1e-6


def test_the_first_plans_age_counts_whole_at_once() -> None:
    stage = Stage()
    stage.run(TICK_S, lambda now_s: plan_of(SMILE, stage.seq, now_s - 0.3, target_times_s=now_s + np.arange(9) / 30))
    status = stage.controller.status(stage.now_s)
    assert status.glass_to_motor_s - status.motor_lag_s - status.own_lag_s == pytest.approx(0.3)
    assert status.compensated_s == pytest.approx(0.3 + status.look_ahead_s, abs=0.02)


def test_a_robot_that_opens_but_takes_nothing_is_left_alone_ever_longer() -> None:
    stage = Stage()
    stage.robot.shut = stage.robot.broken = True
    stage.run(0.1)
    stage.robot.shut = False
    stage.robot.open = lambda: setattr(stage.robot, "opened", stage.robot.opened + 1)  # type: ignore[method-assign]
    stage.run(8.0)
    assert stage.robot.opened <= 4


@pytest.mark.parametrize("silent_s", [0.4, 1.0, 8.0, 60.0])
def test_after_any_silence_the_face_is_as_far_ahead_as_before_it(silent_s: float) -> None:
    def talk(now_s: float) -> AUPlan:
        times_s = now_s + np.arange(9) / 30
        return plan_of(np.stack([face(AU12=0.5 + 0.4 * np.sin(5 * t)) for t in times_s]), stage.seq, now_s)

    stage = Stage(ToyRobot(lag_s=0.12))
    stage.run(5.0, talk)
    before = stage.controller.status(stage.now_s)
    stage.run(silent_s)
    stage.run(0.5, talk)
    soon = stage.controller.status(stage.now_s)
    assert soon.state == "following"
    assert soon.look_ahead_s == pytest.approx(before.look_ahead_s, abs=FRAME_S)
    stage.run(2.0, talk)
    after = stage.controller.status(stage.now_s)
    assert after.glass_to_motor_s == pytest.approx(after.compensated_s, abs=FRAME_S / 2)


def test_a_robot_without_sensors_is_looked_ahead_for_as_its_calibration_says() -> None:
    stage = Stage(ToyRobot(senses=False))
    stage.run(2.0, lambda now_s: plan_of(face(AU12=0.5 + 0.4 * np.sin(5 * now_s)), stage.seq, now_s))
    status = stage.controller.status(stage.now_s)
    assert (status.measured, status.motor_lag_s) == (False, pytest.approx(0.07))
    assert stage.moments[-1].sensed is None


def test_the_lag_of_the_motors_is_measured_while_following() -> None:
    stage = Stage(ToyRobot(lag_s=0.16))
    curve = np.cumsum(np.random.default_rng(0).normal(0, 0.25, (2000, 5)), axis=0)
    shown = 0.5 + 0.45 * np.sin(curve)

    def plan(now_s: float) -> AUPlan:
        at = (now_s + np.arange(9) / 30) * 10
        units = [np.interp(at, np.arange(2000), column) for column in shown.T]
        rows = [face(AU1=a, AU5=b, AU12=c, AU26=d, AU25=e) for a, b, c, d, e in zip(*units, strict=True)]
        return plan_of(np.stack(rows), stage.seq, now_s)

    stage.run(8.0, plan)
    status = stage.controller.status(stage.now_s)
    assert status.measured
    assert status.motor_lag_s == pytest.approx(0.16, abs=0.75 * TICK_S + 0.005)
    assert status.look_ahead_s == pytest.approx(status.motor_lag_s + status.own_lag_s + 0.01, abs=0.01)
    assert status.glass_to_motor_s == pytest.approx(status.compensated_s, abs=FRAME_S)


def test_a_tick_that_comes_much_too_late_moves_on_from_rest_and_does_not_jump() -> None:
    stage = Stage()
    stage.run(0.15, SMILE)
    before = stage.sent.copy()
    stage.now_s += 0.4
    stage.run(TICK_S, SMILE)
    assert np.abs(stage.sent - before).max() < 0.01
    assert stage.controller.status(stage.now_s).counts.stalls == 1
    stage.run(1.0, SMILE)
    assert stage.sent[CORNER] == pytest.approx(0.8, abs=1e-3)


def test_a_clock_that_stands_still_sends_nothing_twice() -> None:
    stage = Stage()
    stage.run(0.5, SMILE)
    n_sent = len(stage.robot.sent)
    command = stage.controller.tick(stage.now_s)
    stage.controller.tick(stage.now_s - 1.0)
    assert len(stage.robot.sent) == n_sent
    np.testing.assert_array_equal(command.shares, stage.sent)


def test_a_jaw_that_is_told_to_stay_open_is_relaxed_to_what_it_may_hold() -> None:
    stage = Stage()
    stage.run(0.8, face(AU26=1.0))
    assert stage.sent[JAW] == pytest.approx(1.0, abs=1e-3)
    stage.run(2.0, face(AU26=1.0))
    assert stage.sent[JAW] == pytest.approx(0.6, abs=1e-3)
    assert stage.controller.status(stage.now_s).counts.holds == 1


def test_over_half_a_second_late_the_face_is_commanded_less_often_and_shows_lasting_expressions_only() -> None:
    stage = Stage()

    def late(now_s: float) -> AUPlan:
        rows = np.stack([face(AU12=0.8, AU1=0.5 * (h % 3 == 0)) for h in range(9)])
        return plan_of(rows, stage.seq, now_s - 0.6, target_times_s=now_s + np.arange(9) / 30)

    stage.run(3.0, late)
    n_sent = len(stage.robot.sent)
    stage.run(2.0, late)
    assert stage.controller.status(stage.now_s).degraded
    assert len(stage.robot.sent) - n_sent == pytest.approx(2 * RATE_HZ, abs=2)
    assert stage.sent[CORNER] == pytest.approx(0.8, abs=1e-3)
    assert stage.sent[CALIBRATION.position("brow")] == pytest.approx(0.0, abs=1e-3)
    stage.run(4.0, SMILE)
    assert not stage.controller.status(stage.now_s).degraded


def test_the_intended_pose_of_a_moment_is_what_the_plan_says_for_its_target_time() -> None:
    stage = Stage(config=MotionConfig(blend_s=0.0))
    stage.run(2.0, lambda now_s: plan_of(np.stack([face(AU12=0.5 + 0.4 * np.sin(now_s + h / 30)) for h in range(9)]),
                                         stage.seq, now_s))  # fmt: skip
    for moment in stage.moments[30:]:
        meant = 0.5 + 0.4 * np.sin(moment.target_time_s)
        assert moment.goal[CORNER] == pytest.approx(meant, abs=2e-3)
        assert moment.target_time_s > moment.now_s


def test_every_tick_is_told_and_timed() -> None:
    times: dict[str, list[float]] = {"motion": [], "send": []}
    moments: list[Moment] = []
    controller = Controller(ToyRobot(), watch=moments.append, times=lambda stage, ms: times[stage].append(ms))
    controller.start(0.0)
    for tick in range(1, 31):
        controller.tick(tick * TICK_S)
    assert [len(v) for v in times.values()] == [30, 30]
    assert [m.now_s for m in moments] == [tick * TICK_S for tick in range(1, 31)]
    assert min(times["motion"]) >= 0
    assert controller.status(0.5).as_dict()["counts"]["sent"] == 30


@pytest.mark.parametrize("smoothing", ["one-euro", "kalman", "none"])
def test_every_smoothing_follows_and_keeps_the_limits(smoothing: str) -> None:
    stage = Stage(config=MotionConfig(smoothing=smoothing))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    stage.run(3.0, lambda now_s: plan_of(rng.random(17).astype(np.float32), stage.seq, now_s))
    stage.run(1.0, SMILE)
    assert stage.sent[CORNER] == pytest.approx(0.8, abs=0.01)
    assert max(exceeded(stage.robot.sent)) <= 1 + 1e-6


def test_a_robot_without_channels_ticks_as_any_other() -> None:
    robot = robots.load("null")
    robot.open()
    controller = Controller(robot)
    controller.start(0.0)
    for tick in range(1, 300):
        now_s = tick * TICK_S
        if now_s < 2:
            controller.offer(plan_of(SMILE, tick, now_s), now_s)
        controller.tick(now_s)
    assert controller.status(5.0).state == "neutral"
    assert isinstance(robot.calibration, Calibration)


def test_plans_stops_and_questions_may_come_from_other_threads_while_it_ticks() -> None:
    stage = Stage()
    plans = [plan_of(SMILE, seq, 10.0 + seq / 300) for seq in range(300)]

    def ask() -> None:
        for plan in plans:
            stage.controller.offer(plan, 10.0 + plan.seq / 300)
            stage.controller.status(10.5)
            stage.controller.at_rest()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    stage.run(1.0)
    for thread in threads:
        thread.join()
    counts = stage.controller.status(stage.now_s).counts
    assert counts.taken + counts.old + counts.late + counts.refused == 900
    assert counts.taken >= 1
    assert max(exceeded(stage.robot.sent)) <= 1 + 1e-6
