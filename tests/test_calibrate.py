"""Calibration measures a robot by its own sensors, asks for nothing that the loop would not, and always goes home."""

import os
import signal as signals
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from deploy import calibrate, rig, robots
from deploy.calibration import FOLDER, Calibration
from deploy.head.model import DEAD_TIME_S, STEP_S, TIME_CONSTANT_S
from deploy.head.physics import Physics
from deploy.plan import Command
from deploy.robots import Feedback, RobotLost
from deploy.robots.null import NullRobot
from deploy.robots.sim import SimRobot
from deploy.step_response import fit, rise_s
from dyad.clock import FakeClock

SIM = Calibration.load("sim")
SMILE, BROW = SIM.position("corner_up_left"), SIM.position("brow_inner_right")


class Watched(SimRobot):
    """The simulated head, with a note of everything that it was asked to do."""

    def __init__(
        self,
        calibration: Calibration = SIM,
        *,
        dead_time_s: float = DEAD_TIME_S,
        trouble: Callable[[int], None] = lambda _: None,
    ) -> None:
        super().__init__(calibration, dead_time_s=dead_time_s)
        self.sent: list[tuple[float, np.ndarray]] = []
        self.ends: list[str] = []
        self._trouble = trouble

    def send(self, command: Command, now_s: float) -> Command:
        self._trouble(len(self.sent))
        self.sent.append((now_s, command.shares.copy()))
        return super().send(command, now_s)

    def release(self) -> None:
        self.ends.append("released")

    def close(self) -> None:
        self.ends.append("closed")
        super().close()


# ---- the fit, against scipy -----------------------------------------------------------------------------------------


def answer(lag_s: float, motor_s: float, dead_s: float, told_s: np.ndarray, told: np.ndarray) -> np.ndarray:
    """What scipy's simulator says such a servo does, at the same times."""
    fine_s = np.arange(0, told_s[-1], 1e-4)
    held = told[np.searchsorted(told_s, fine_s - dead_s, side="right").clip(1) - 1]
    system = signal.lti([1.0], np.polymul([lag_s, 1], np.polymul([motor_s, 1], [motor_s, 1])))
    _, did, _ = signal.lsim(system, held, fine_s)
    return np.interp(told_s, fine_s, did)


@pytest.mark.parametrize(("noise", "within_s"), [(0.0003, 0.004), (0.002, 0.006)])
@pytest.mark.parametrize(
    ("lag_s", "motor_s", "dead_s"), [(0.03, 0.02, 0.05), (0.08, 0.01, 0.15), (0.005, 0.03, 0.2), (0.05, 0.05, 0.0)]
)
def test_a_servos_delays_are_found_in_noisy_readings(
    lag_s: float, motor_s: float, dead_s: float, noise: float, within_s: float
) -> None:
    """Their sum is sure; how much of it is dead time is the less sure the noisier the sensor."""
    rng = np.random.default_rng(4)
    told_s = np.arange(0, 2.5, 1 / 60) + rng.uniform(0, 0.004, 150)
    told = np.interp(told_s, [0.3, 0.5, 1.1, 1.3], [0.0, 0.8, 0.8, 0.0])
    seen = 0.1 + 0.9 * answer(lag_s, motor_s, dead_s, told_s, told) + rng.normal(0, noise, 150)
    found = fit(told_s, told, told_s, seen)
    assert found is not None
    assert found.dead_time_s == pytest.approx(dead_s, abs=within_s)
    assert found.lag_s + found.dead_time_s == pytest.approx(lag_s + 2 * motor_s + dead_s, abs=0.003)
    assert found.gain == pytest.approx(0.9, abs=0.01)
    assert found.agreement > 0.999


def test_rise_time_is_scipys() -> None:
    system = signal.lti([1.0], np.polymul([0.03, 1], np.polymul([0.02, 1], [0.02, 1])))
    t, step = signal.step(system, T=np.arange(0, 1, 1e-4))
    low, high = (t[np.searchsorted(step, level)] for level in (0.1, 0.9))
    assert rise_s(0.03, 0.02) == pytest.approx(high - low, abs=0.001)


def test_a_sensor_that_did_not_move_says_nothing() -> None:
    t = np.arange(0, 1, 0.01)
    assert fit(t, np.sin(t), t, 0.001 * np.sin(50 * t)) is None


# ---- on the simulated head, in fake time ----------------------------------------------------------------------------


@pytest.mark.parametrize("dead_s", [DEAD_TIME_S, 0.12])
def test_the_simulated_heads_dead_time_is_found_within_a_few_milliseconds(dead_s: float) -> None:
    robot = Watched(dead_time_s=dead_s)
    measured = rig.measure(robot, FakeClock(), [SMILE, BROW], 0.8)
    found = rig.calibrated(SIM, measured)
    assert found.dead_time_s == pytest.approx(dead_s + 0.004, abs=0.003)  # two physics steps beside the delay itself
    motor_s = np.sqrt(0.0205 / 40)
    assert found.time_constant_s == pytest.approx(TIME_CONSTANT_S + 2 * motor_s, abs=0.004)
    for one in measured:
        assert one.high == pytest.approx(1, abs=0.01)
        assert one.low == pytest.approx(1, abs=0.01)


def test_the_fitted_delays_together_are_the_mean_delay_of_a_step_of_the_physics_itself() -> None:
    """A step's mean delay is the area above its answer; no model of the servo enters."""
    measured = rig.measure(Watched(), FakeClock(), [SMILE, BROW, SIM.position("jaw")], 0.8)
    physics = Physics(DEAD_TIME_S, TIME_CONSTANT_S)
    physics.advance(0.0)
    physics.command(SIM.device_values(np.full(len(SIM.names), 0.1)), 0.0)
    answer = list[np.ndarray]()
    for step in range(500):
        physics.advance(step * STEP_S)
        answer.append(SIM.shares_of(physics.reading()[1]) / 0.1)
    mean_delay_s = STEP_S * (1 - np.array(answer)).sum(axis=0)
    for one in measured:
        assert one.response is not None
        together_s = one.response.dead_time_s + one.response.lag_s
        assert together_s == pytest.approx(mean_delay_s[SIM.position(one.channel)], abs=0.004), one.channel


def test_calibrating_what_was_calibrated_gives_the_same_figures() -> None:
    found, figures = SIM, list[tuple[float, float]]()
    for _ in range(3):
        found = rig.calibrated(found, rig.measure(Watched(found), FakeClock(), [SMILE, BROW], 0.8))
        figures.append((found.dead_time_s, found.time_constant_s))
    assert figures[1] == figures[0]
    assert figures[2] == figures[0], "the file says what was measured; the head is as it is"


def test_the_simulated_heads_file_says_what_calibrate_measures() -> None:
    channels = [SMILE, BROW, SIM.position("jaw"), SIM.position("nose"), SIM.position("lip_upper")]
    found = rig.calibrated(SIM, rig.measure(Watched(), FakeClock(), channels, 0.8))
    assert SIM.dead_time_s == pytest.approx(found.dead_time_s, abs=0.003)
    assert SIM.time_constant_s == pytest.approx(found.time_constant_s, abs=0.003)


def test_nothing_is_asked_beyond_share_and_limits_and_only_one_channel_moves_at_a_time() -> None:
    robot = Watched()
    rig.measure(robot, FakeClock(), [SMILE, BROW], 0.6)
    times_s, shares = np.array([t for t, _ in robot.sent]), np.stack([s for _, s in robot.sent])
    assert np.abs(shares).max() == pytest.approx(0.6, abs=1e-6)
    assert (np.count_nonzero(np.abs(shares) > 1e-9, axis=1) <= 1).all()
    assert set(np.flatnonzero(np.abs(shares).max(axis=0) > 1e-9)) == {SMILE, BROW}
    velocity, acceleration, _ = SIM.limits
    speeds = np.diff(shares, axis=0) / np.diff(times_s)[:, None]
    assert (np.abs(speeds).max(axis=0) <= velocity * 1.001).all()
    assert (np.abs(np.diff(speeds, axis=0)).max(axis=0) <= acceleration * np.diff(times_s).max() * 1.01).all()
    assert np.abs(shares[-1]).max() < 1e-9
    assert robot.ends == ["released", "closed"]


def test_every_channel_is_told_of_when_it_is_done_not_at_the_end() -> None:
    robot, told = Watched(), list[tuple[int, str, int]]()
    measured = rig.measure(
        robot, FakeClock(), [SMILE, BROW], 0.6, tell=lambda n, one: told.append((n, one.channel, len(robot.sent)))
    )
    assert [(n, name) for n, name, _ in told] == [(0, measured[0].channel), (1, measured[1].channel)]
    assert told[0][2] < 0.6 * told[1][2]


def test_it_starts_from_where_the_robot_really_is() -> None:
    robot = Watched()
    robot.open()
    super(Watched, robot).send(Command(0, 0.0, np.full(len(SIM.names), 0.5)), 0.0)
    robot.advance(2.0)
    robot.open = lambda: None  # type: ignore[method-assign]
    clock = FakeClock(2.0)
    sensed = robot.feedback(2.0).shares
    rig.measure(robot, clock, [SMILE], 0.5)
    np.testing.assert_allclose(robot.sent[0][1], sensed, atol=1e-6)


def raise_at(number: int, error: BaseException) -> Callable[[int], None]:
    waiting = [error]

    def trouble(count: int) -> None:
        if count == number and waiting:
            raise waiting.pop()

    return trouble


@pytest.mark.parametrize("number", [3, 45, 52, 70])
def test_ctrl_c_at_any_moment_brings_the_face_home_and_lets_it_go(number: int) -> None:
    robot = Watched(trouble=raise_at(number, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        rig.measure(robot, FakeClock(), [SMILE, BROW], 0.8)
    shares = np.stack([s for _, s in robot.sent])
    assert np.abs(shares[-1]).max() < 1e-9
    assert np.abs(np.diff(shares, axis=0)).max() < 6.0 / 60 * 1.5, "no jump home"
    assert robot.ends == ["released", "closed"]


def test_a_robot_that_cannot_be_opened_is_closed_again() -> None:
    robot = Watched()
    robot.open = lambda: (_ for _ in ()).throw(ValueError("no answer"))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no answer"):
        rig.measure(robot, FakeClock(), [SMILE], 0.8)
    assert robot.ends == ["closed"]


class Oversleeping(FakeClock):
    """A clock on which every fiftieth sleep takes far too long."""

    slept = 0

    def sleep_until(self, time_s: float) -> None:
        self.slept += 1
        super().sleep_until(time_s + (0.3 if self.slept % 50 == 0 else 0.0))


def test_a_machine_that_stalls_delays_the_way_and_makes_no_jump_of_it() -> None:
    robot, clock = Watched(), Oversleeping()
    rig.measure(robot, clock, [SMILE], 0.8)
    steps = np.abs(np.diff(np.stack([s for _, s in robot.sent]), axis=0))
    assert clock.slept > 100
    assert (steps <= SIM.limits[0] * rig.LONGEST_STEP / SIM.rate_hz * (1 + 1e-6)).all()
    assert np.abs(robot.sent[-1][1]).max() < 1e-9
    assert np.diff([t for t, _ in robot.sent]).min() > 0.9 / SIM.rate_hz, "and the lost time is not made up for"


def test_a_robot_that_is_lost_is_let_go_and_not_sent_home() -> None:
    robot = Watched(trouble=raise_at(20, RobotLost("gone")))
    with pytest.raises(RobotLost):
        rig.measure(robot, FakeClock(), [SMILE], 0.8)
    assert len(robot.sent) == 20
    assert robot.ends == ["released", "closed"]


def test_a_robot_without_sensors_is_refused_before_it_moves() -> None:
    class Blind(NullRobot):
        def send(self, command: Command, now_s: float) -> Command:
            raise AssertionError("it was moved")

    with pytest.raises(ValueError, match="robot null reports no positions, so nothing can be measured; calibrate one"):
        rig.measure(Blind(Calibration.load("null")), FakeClock(), [], 0.8)


def test_a_motor_that_does_not_reach_its_end_gets_its_ends_drawn_in_never_out(tmp_path: Path) -> None:
    class Stiff(Watched):
        def feedback(self, now_s: float) -> Feedback:
            seen = super().feedback(now_s)
            seen.shares[SMILE] = 1.2 * max(seen.shares[SMILE], -0.4)
            return seen

    measured = rig.measure(Stiff(), FakeClock(), [SMILE, BROW], 0.8)
    found = rig.calibrated(SIM, measured)
    rig.write(found, tmp_path / "mine.yaml", measured, "sim")
    assert Calibration.load("mine", tmp_path) == found
    channel = found.channels["corner_up_left"]
    assert channel.high == SIM.channels["corner_up_left"].high
    assert channel.low == pytest.approx(-0.016 * 0.4 * 1.2 / 0.8, rel=0.02)


def test_motors_that_do_not_follow_at_all_are_not_written_down() -> None:
    still = rig.Measured("jaw", None, None, None)
    with pytest.raises(ValueError, match="robot sim: no channel followed its commands"):
        rig.calibrated(SIM, [still])


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dyad.clock.MonotonicClock", FakeClock)
    monkeypatch.chdir(tmp_path)


def test_the_command_measures_prints_and_writes_a_calibration_that_loads(
    fake_time: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine" / "sim.yaml"
    line = ["--robot", "sim", "--out", str(out), "--channels", "corner_up_left", "brow_inner_right"]
    assert calibrate.main(line) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:3] == ["channel", "dead", "ms"]
    assert [line.split()[0] for line in said[1:3]] == ["brow_inner_right", "corner_up_left"][::-1]
    assert said[3].startswith("dead time 4")
    written = Calibration.load("sim", out.parent)
    assert written.dead_time_s == pytest.approx(0.044, abs=0.003)
    assert replace(written, dead_time_s=SIM.dead_time_s, time_constant_s=SIM.time_constant_s) == SIM
    assert out.read_text(encoding="utf8").startswith("# Written by python -m deploy.calibrate --robot sim on 2")
    assert [p.name for p in out.parent.iterdir()] == ["sim.yaml"], "nothing is left beside it"
    robots.load("sim", out).open()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_signal_ends_it_at_home_and_a_second_one_does_not_cut_that_short(
    fake_time: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def trouble(count: int) -> None:
        if count in (60, 64):  # in the middle of a movement, and on the way home
            os.kill(os.getpid(), getattr(signals, name))

    robot = Watched(trouble=trouble)
    monkeypatch.setattr(robots, "load", lambda *_: robot)
    assert calibrate.main(["--robot", "sim", "--out", str(tmp_path / "mine.yaml")]) == 128 + getattr(signals, name)
    assert len(robot.sent) > 64
    assert np.abs([s for _, s in robot.sent]).max() > 0.3
    assert np.abs(robot.sent[-1][1]).max() < 1e-9
    assert robot.ends == ["released", "closed"]
    assert not (tmp_path / "mine.yaml").exists()


def test_without_out_an_existing_file_is_never_overwritten(fake_time: None, tmp_path: Path) -> None:
    (tmp_path / "out" / "robots").mkdir(parents=True)
    there = tmp_path / "out" / "robots" / "sim.yaml"
    there.write_text("precious", encoding="utf8")
    with pytest.raises(ValueError, match=r"out/robots/sim.yaml is there already; .*--out out/robots/sim.yaml"):
        calibrate.main(["--robot", "sim"])
    assert there.read_text(encoding="utf8") == "precious"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("AU12:", "AU112:", "AU112.*did you mean AU12"),
        ("jaw: 0.18", "jaw: 1.8", "AU25 moves jaw by 1.8"),
        ("jaw: {low: -0.02", "jaw: {low: 0.5", "jaw wants its neutral between low and high"),
        ("velocity_per_s: 6.0", "velocity_per_s: 0.5", "may need .* s to neutral"),
        ("  AU14:", "  AU12: {jaw: 1.0}\n  AU14:", r"line \d+: the key 'AU12' is there a second time, first in line"),
    ],
)
def test_a_wrong_calibration_is_refused_before_anything_moves(
    fake_time: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, words: str
) -> None:
    monkeypatch.setattr(SimRobot, "open", lambda _: pytest.fail("it was opened"))
    text = (FOLDER / "sim.yaml").read_text(encoding="utf8")
    assert old in text
    (tmp_path / "sim.yaml").write_text(text.replace(old, new), encoding="utf8")
    with pytest.raises(ValueError, match=words) as caught:
        calibrate.main(["--robot", "sim", "--calibration", str(tmp_path / "sim.yaml")])
    assert str(caught.value).startswith(f"{tmp_path / 'sim.yaml'}: "), "the file is named"


def test_an_unknown_channel_is_refused_with_the_nearest(fake_time: None) -> None:
    with pytest.raises(ValueError, match="no channel 'jow'; did you mean 'jaw'"):
        calibrate.main(["--robot", "sim", "--channels", "jow"])


@pytest.mark.parametrize("name", ["null", "osc"])
def test_the_command_refuses_robots_that_cannot_be_measured(fake_time: None, name: str) -> None:
    with pytest.raises(ValueError, match=f"robot {name} reports no positions"):
        calibrate.main(["--robot", name])
