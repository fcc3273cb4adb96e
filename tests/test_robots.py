"""Robots are found by name, refuse a wrong calibration before moving, and the simulated head is as late as it says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy import robots
from deploy.calibration import FOLDER, Calibration, Mixer
from deploy.head.model import CHANNELS, NAMES, STEP_S
from deploy.head.painter import HeadPainter
from deploy.motion.holds import HoldRule
from deploy.plan import Command
from deploy.robots.sim import SimRobot, make
from dyad.action_units import SEED17
from dyad.clock import FRAME_S

SIM = Calibration.load("sim")


def command(au: NDArray[np.float32], seq: int = 0, now_s: float = 0.0) -> Command:
    return Command(seq, now_s, Mixer(SIM).mix(au))


def face(**intensities: float) -> NDArray[np.float32]:
    au = np.zeros(17, np.float32)
    for unit, value in intensities.items():
        au[SEED17.index(unit)] = value
    return au


def settled(au: NDArray[np.float32]) -> dict[str, float]:
    """Joint positions by name once the head has rested in a pose for two seconds."""
    robot = make(SIM, "")
    robot.open()
    robot.send(command(au), 0.0)
    return dict(zip(NAMES, robot.feedback(2.0).joints, strict=True))


def moved(robot: SimRobot, frames: int = 150) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Commanded and sensed shares [T, C] of a head that follows slow random curves, on a clock of our own."""
    robot.open()
    noise = np.random.default_rng(0).standard_normal((frames + 30, 17))
    kernel = np.hanning(13) / np.hanning(13).sum()
    curves = np.array([np.convolve(c, kernel, "same") for c in noise.T]).T[15 : 15 + frames]
    told, did = [], []
    for t, row in enumerate(np.clip(0.4 + curves, 0, 1).astype(np.float32)):
        told.append(robot.send(command(row, t), t * FRAME_S).shares)
        did.append(robot.feedback(t * FRAME_S).shares)
    return np.array(told), np.array(did)


def lag_s(told: NDArray[np.float64], did: NDArray[np.float64]) -> float:
    """Where speeds [T, C] correlate best: the top of a parabola through the best frame and its neighbours."""
    a, b = np.diff(told, axis=0), np.diff(did, axis=0)
    scores = np.array([(a[: len(a) - k] * b[k:]).sum() for k in range(20)])
    k = int(scores.argmax())
    left, middle, right = scores[k - 1 : k + 2]
    return (k + 0.5 * (left - right) / (left - 2 * middle + right)) * FRAME_S


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_calibration_in_the_folder_belongs_to_a_robot(path: Path) -> None:
    assert Calibration.load(path.stem).robot == path.stem
    assert path.stem in robots.available()


def test_an_unknown_robot_lists_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown robot 'robocop'; available: .*null.*sim"):
        robots.load("robocop")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"au": {"AU112": {"jaw": 1.0}}}, r"AU112.*AU12"),
        ({"rest": 1.0}, "rest"),
        ({"gain": float("nan")}, "gain"),
        ({"velocity_per_s": 0.0}, "velocity"),
        ({"acceleration_per_s2": -1.0}, "acceleration"),
        ({"dead_time_s": -0.1}, "dead_time_s"),
        ({"time_constant_s": float("inf")}, "time_constant_s"),
    ],
)
def test_a_calibration_that_could_move_a_robot_wrongly_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SIM, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"velocity_per_s": 0.8},
        {"velocity_per_s": 6.0, "acceleration_per_s2": 10.0},  # away at full speed: it must stop first
        {"dead_time_s": 0.8, "time_constant_s": 0.2},
        {"time_constant_s": 0.55},
        {"rate_hz": 1.5},
    ],
)
def test_motors_that_could_not_be_home_in_time_from_full_speed_are_refused(change: dict[str, float]) -> None:
    assert Calibration.load("sim") == SIM, "as shipped it is taken"
    with pytest.raises(ValueError, match=r"may need .* s to neutral, more than the 1\.4 s"):
        dataclasses.replace(SIM, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"au": {"AU26": {"jow": 1.0}}}, {"share_max": ("jow",)}])
def test_a_channel_that_the_robot_lacks_is_refused_with_the_nearest(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"sim.*'jow'.*did you mean 'jaw'"):
        dataclasses.replace(SIM, **change)  # type: ignore[arg-type]


def test_an_unknown_key_in_a_calibration_file_is_refused_with_the_nearest(tmp_path: Path) -> None:
    text = (FOLDER / "sim.yaml").read_text(encoding="utf8").replace("gamma:", "gama:")
    (tmp_path / "sim.yaml").write_text(text, encoding="utf8")
    with pytest.raises(ValueError, match=r"gama.*gamma"):
        Calibration.load("sim", tmp_path)


def test_intensities_rise_with_probability_from_rest_to_full() -> None:
    levels = SIM.intensity(np.linspace(0, 1, 101, dtype=np.float32))
    assert levels[0] == 0
    assert levels[5] == 0, "below the resting probability nothing moves"
    assert levels[-1] == 1
    assert (np.diff(levels) >= 0).all()


def test_lips_apart_and_jaw_drop_share_the_jaw_by_the_larger_never_the_sum() -> None:
    jaw = NAMES.index("jaw")
    both = Mixer(SIM).mix(face(AU25=1.0, AU26=0.5))[jaw]
    assert both == pytest.approx(max(0.18, 0.5))


def test_antagonists_cancel_on_a_channel_they_share() -> None:
    corner = NAMES.index("corner_up_left")
    assert Mixer(SIM).mix(face(AU12=0.6, AU15=0.6))[corner] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["jaw", "lid_upper_left", "lid_upper_right"])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_jaw_or_lid_is_not_kept_far_out_for_long(name: str, side: float) -> None:
    rule, far = HoldRule(SIM), np.zeros(len(NAMES))
    far[NAMES.index(name)] = side
    for _ in range(5 * 60):
        goal, _ = rule.apply(far, far, 1 / 60)
    assert goal[NAMES.index(name)] == 0.6 * side


def test_the_head_has_at_least_24_servos_and_every_unit_moves_one() -> None:
    assert len(CHANNELS) >= 24
    assert len(set(NAMES)) == len(NAMES)
    assert set(SIM.au) == set(SEED17.units)
    assert (np.abs(SIM.weights()).max(axis=1) > 0.5).all()


def test_joints_rest_at_neutral_and_stay_within_their_travel_at_full_expression() -> None:
    assert max(abs(v) for v in settled(face()).values()) < 1e-4
    for unit in SEED17.units:
        joints = settled(face(**{unit: 1.0}))
        for channel in CHANNELS:
            slack = 0.02 * (channel.high - channel.low)
            assert channel.low - slack <= joints[channel.name] <= channel.high + slack, (unit, channel.name)


def test_a_smile_raises_both_corners_alike_to_where_it_was_told() -> None:
    joints = settled(face(AU12=1.0))
    top = next(c.high for c in CHANNELS if c.name == "corner_up_left")
    assert joints["corner_up_left"] == pytest.approx(top, rel=0.02)
    assert joints["corner_up_left"] == pytest.approx(joints["corner_up_right"], rel=1e-3)


def test_nothing_moves_within_the_dead_time_of_a_servo() -> None:
    robot = SimRobot(SIM, dead_time_s=0.1)
    robot.open()
    robot.advance(0.0)
    robot.send(command(face(AU12=1.0)), 1.0)
    corner = NAMES.index("corner_up_left")
    assert abs(robot.feedback(1.0 + 0.1 - 2 * STEP_S).shares[corner]) < 1e-3
    assert robot.feedback(1.3).shares[corner] > 0.5


def test_a_longer_dead_time_shows_on_the_joint_sensors_as_just_that_much_more_lag() -> None:
    lags = [lag_s(*moved(SimRobot(SIM, dead_time_s=d))) for d in (0.05, 0.1, 0.15, 0.2)]
    np.testing.assert_allclose(np.diff(lags), 0.05, atol=0.5 * FRAME_S)


def test_physics_steps_alike_whether_asked_often_or_seldom() -> None:
    seldom, often = make(SIM, ""), make(SIM, "")
    for robot in (seldom, often):
        robot.open()
        robot.send(command(face(AU12=0.8, AU4=0.5)), 0.0)
    for tick in range(1, 100):
        often.advance(tick * 0.003)
    np.testing.assert_allclose(often.feedback(0.3).joints, seldom.feedback(0.3).joints, atol=1e-9)


def test_the_neutral_command_brings_every_joint_home_from_any_expression() -> None:
    robot = make(SIM, "")
    robot.open()
    robot.send(command(np.ones(17, np.float32)), 0.0)
    assert np.abs(robot.feedback(1.0).shares).max() > 0.5
    robot.send(command(face(), now_s=1.0), 1.0)
    assert np.abs(robot.feedback(3.0).shares).max() < 1e-2


def test_each_expression_draws_a_picture_of_its_own_and_the_same_one_twice() -> None:
    painter = HeadPainter(360)
    poses = {
        "neutral": face(),
        "smile": face(AU12=1.0, AU6=0.8),
        "surprise": face(AU1=1.0, AU2=1.0, AU5=1.0, AU26=0.9),
        "frown": face(AU4=1.0, AU15=1.0),
        "disgust": face(AU9=1.0, AU10=0.8),
        "pucker": face(AU18=1.0),
    }
    drawn = {name: painter.draw(np.array(list(settled(au).values()))) for name, au in poses.items()}
    again = painter.draw(np.array(list(settled(poses["smile"]).values())))
    np.testing.assert_array_equal(drawn["smile"], again)
    names = list(drawn)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            differing = np.abs(drawn[a].astype(int) - drawn[b].astype(int)).max(2) > 40
            assert differing.mean() > 0.002, f"{a} and {b} look alike"
