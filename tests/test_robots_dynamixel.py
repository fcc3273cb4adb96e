"""Servos are checked before torque, watched while they move, and stop by themselves when commands stop."""

import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robot_peers import DynamixelPeer
from robot_servos import PRESENT, TORQUE, WATCHDOG

from deploy.calibration import Calibration, Channel
from deploy.plan import Command
from deploy.robots import NotReleased, RobotLost, _dynamixel_bus
from deploy.robots.dynamixel import DynamixelRobot, profiles


def whole(calibration: Calibration, value: float, seq: int = 0) -> Command:
    return Command(seq, 0.0, np.full(len(calibration.names), value))


def send_for_ever(robot: Any) -> None:
    for tick in itertools.count(2):
        robot.send(whole(robot.calibration, 0.5, tick), float(tick))


def until(happened: Any) -> Any:
    """Ask again until it says something; what comes over a wire takes its time."""
    deadline = time.monotonic() + 10
    while (said := happened()) is None:
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
    return said


@pytest.fixture
def servos(tmp_path: Path) -> Iterator[DynamixelPeer]:
    peer = DynamixelPeer(tmp_path)
    yield peer
    peer.stop()


def test_opening_a_dynamixel_head_moves_nothing_and_arms_every_servos_watchdog(servos: DynamixelPeer) -> None:
    for k, servo in enumerate(servos.bus.servos.values()):
        servo.put(PRESENT, 1950 + 10 * k, 4)
    robot = servos.robot()
    robot.open()
    for k, servo in enumerate(servos.bus.servos.values()):
        assert servo.get(PRESENT, 4) == servo.get(116, 4) == 1950 + 10 * k
        assert servo.get(TORQUE, 1) == 1
        assert servo.get(WATCHDOG, 1) == 10
        assert servo.get(108, 4) > 0, "an acceleration profile of 0 would mean none"
    seen = robot.feedback(3.0)
    assert seen is not None
    np.testing.assert_allclose(seen.joints, 1950 + 10 * np.arange(len(robot.calibration.names)))
    robot.close()


def test_profiles_lie_just_above_our_limits_in_the_servos_units() -> None:
    calibration = Calibration.load("dynamixel")
    accelerations, velocities = profiles(calibration)
    jaw = calibration.position("id28_jaw")
    ticks_per_s, ticks_per_s2 = 4.0 * 400, 40.0 * 400
    assert 1.25 <= velocities[jaw] * 0.229 / 60 * 4096 / ticks_per_s < 1.3
    assert 1.25 <= accelerations[jaw] * 214.577 / 3600 * 4096 / ticks_per_s2 < 1.3


def test_present_positions_come_back_with_every_command_and_may_be_negative(tmp_path: Path) -> None:
    peer = DynamixelPeer(tmp_path)
    for servo in peer.bus.servos.values():
        servo.put(11, 4, 1)  # extended position: several turns, either way
    calibration = dataclasses.replace(
        peer.calibration, channels={n: Channel(low=-300, high=700) for n in peer.calibration.names}
    )
    robot = DynamixelRobot(calibration, peer.address, 1_000_000)
    robot.open()
    ticks = itertools.count()

    def followed() -> Any:
        robot.send(whole(calibration, -0.5), float(next(ticks)))
        return seen if (seen := robot.feedback(0.0)) and seen.joints[0] < 0 else None

    np.testing.assert_allclose(until(followed).shares, -0.5)
    peer.wait_for(dict.fromkeys(calibration.names, -150.0))
    robot.close()
    peer.stop()


def test_servos_stop_by_themselves_when_commands_stop_and_follow_again_when_they_return(
    servos: DynamixelPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot: Any = servos.robot()
    robot.open()
    robot.send(whole(robot.calibration, 1.0), 0.0)
    servos.wait_for({n: c.high for n, c in robot.calibration.channels.items()})
    until(lambda: True if robot._seen[1][0] != 2048 or robot._misses else None)
    heard = len(servos.bus.packets)
    with servos.bus.change:  # the silence that follows, without waiting for it
        for servo in servos.bus.servos.values():
            servo.heard_s -= 10.0
        robot._written_s -= 1.0
    assert len(servos.bus.packets) == heard, "nothing but commands may keep the bus talking"
    robot.send(whole(robot.calibration, 0.0, 1), 1.0)
    servos.wait_for({n: c.neutral for n, c in robot.calibration.channels.items()})
    assert all(servo.get(WATCHDOG, 1) == 10 for servo in servos.bus.servos.values())
    robot.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda servos: servos.pop(14), r"servo 14 does not answer.*check the power, the cable, the ids"),
        (lambda servos: servos[12].put(11, 1, 1), r"servo 12 is in operating mode 1; set it to 3"),
        (lambda servos: servos[12].put(10, 4, 1), r"servo 12 has time-based profiles"),
        (
            lambda servos: servos[28].put(48, 2400, 4),
            r"servo 28 allows 0 to 2400 ticks, the calibration asks for 2048 to 2448",
        ),
    ],
)
def test_a_servo_that_is_not_as_the_calibration_says_is_refused_before_torque(
    servos: DynamixelPeer, change: Any, words: str
) -> None:
    change(servos.bus.servos)
    robot = servos.robot()
    with pytest.raises(ValueError, match=f"robot dynamixel: {words}"):
        robot.open()
    assert not any(servo.get(TORQUE, 1) for servo in servos.bus.servos.values())
    robot.close()


def test_one_garbled_answer_is_forgiven_and_silence_is_not(servos: DynamixelPeer) -> None:
    robot: Any = servos.robot()
    robot.open()
    lost = servos.bus.servos.pop(20)
    robot.send(whole(robot.calibration, 0.2), 0.0)
    until(lambda: robot._misses or None)
    servos.bus.servos[20] = lost
    ticks = itertools.count(1)

    def answers_again() -> bool | None:
        robot.send(whole(robot.calibration, 0.3), float(next(ticks)))
        return None if robot._misses else True

    until(answers_again)
    servos.bus.servos.pop(20)
    with pytest.raises(RobotLost, match="not every servo answers"):
        send_for_ever(robot)
    with pytest.raises(NotReleased, match=r"torque may still be on \(not every servo answers"):
        robot.release()
    robot.close()


def test_a_servo_that_missed_the_word_is_told_again_until_its_torque_is_off(servos: DynamixelPeer) -> None:
    robot = servos.robot()
    robot.open()
    servos.bus.servos[20].deaf_to, servos.bus.servos[20].misses = TORQUE, 2
    robot.release()
    servos.wait(servos.released)
    robot.close()


def test_a_servo_that_may_still_hold_torque_keeps_its_watchdog_and_says_so(servos: DynamixelPeer) -> None:
    robot = servos.robot()
    robot.open()
    servos.bus.servos[20].deaf_to, servos.bus.servos[20].misses = TORQUE, 10**9
    words = r"torque may still be on \(servos \[20\] hold\); the bus watchdog stays armed; cut the power"
    for _ in range(2):
        with pytest.raises(NotReleased, match=words):
            robot.release()
    assert servos.bus.servos[20].get(WATCHDOG, 1) == 10
    assert sum(servo.get(TORQUE, 1) for servo in servos.bus.servos.values()) == 1
    with pytest.raises(RobotLost, match=words):
        robot.feedback(0.0)
    robot.close()
    servos.bus.servos[20].misses = 0
    robot.open()
    robot.release()
    servos.wait(servos.released)
    robot.close()


def test_an_answer_that_comes_late_is_not_taken_for_torque_that_is_off(servos: DynamixelPeer) -> None:
    robot = servos.robot()
    robot.open()  # at position 2048, whose first byte is 0
    servos.bus.servos[20].deaf_to, servos.bus.servos[20].misses = TORQUE, 10**9
    servos.bus.late_positions = True
    with pytest.raises(NotReleased, match=r"servos \[20\] hold"):
        robot.release()
    robot.close()
    servos.bus.servos[20].misses = 0
    robot.open()
    robot.release()
    servos.wait(servos.released)
    robot.close()


def test_torque_that_is_on_but_not_as_it_should_be_is_taken_off_again_before_the_refusal(
    servos: DynamixelPeer,
) -> None:
    robot = servos.robot()
    servos.bus.servos[20].deaf_to, servos.bus.servos[20].misses = WATCHDOG, 10**9
    with pytest.raises(ValueError, match="servo 20 does not hold torque with its bus watchdog armed; check") as caught:
        robot.open()
    assert "torque may still be on" not in str(caught.value)
    assert not any(servo.get(TORQUE, 1) for servo in servos.bus.servos.values())
    robot.close()


def test_torque_that_cannot_be_taken_off_again_is_in_the_refusal(servos: DynamixelPeer) -> None:
    robot, servo = servos.robot(), servos.bus.servos[20]
    really = servo.write

    def stubborn(address: int, data: bytes) -> int:
        return 0 if (address, data[0]) in ((TORQUE, 0), (WATCHDOG, 10)) else really(address, data)

    servo.write = stubborn  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"watchdog armed; torque may still be on \(servos \[20\] hold\)"):
        robot.open()
    with pytest.raises(NotReleased, match=r"servos \[20\] hold"):
        robot.release()


def test_a_second_user_of_the_port_is_refused_before_it_says_or_takes_a_byte(servos: DynamixelPeer) -> None:
    first, second = servos.robot(), servos.robot()
    first.open()
    heard = len(servos.bus.packets)
    with pytest.raises(ValueError, match=r"^robot dynamixel: .*ttyUSB0 is in use by another process; end that one"):
        second.open()
    assert len(servos.bus.packets) == heard
    assert all(servo.get(TORQUE, 1) for servo in servos.bus.servos.values()), "the first one's face is still held"
    second.close()
    first.send(whole(first.calibration, 0.0, 1), 0.1)
    assert first.feedback(0.1) is not None
    first.close()
    second.open()
    second.close()


def test_a_port_that_does_not_open_is_not_kept_from_others(tmp_path: Path) -> None:
    (tmp_path / "tty").touch()  # no terminal
    for _ in range(2):
        with pytest.raises(_dynamixel_bus.BusError, match=r"tty does not open \("):
            _dynamixel_bus.Bus(str(tmp_path / "tty"), 57_600, [1])


def test_a_wrong_rate_of_the_bus_is_named(tmp_path: Path) -> None:
    with pytest.raises(_dynamixel_bus.BusError, match="1234567 baud is none of the rates"):
        _dynamixel_bus.Bus(str(tmp_path / "tty"), 1_234_567, [1])
