"""What each wire promises beyond the contract: bytes, rates, keys, watchdogs, backpressure."""

import dataclasses
import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robot_peers import ARKIT_ORDER, FurhatPeer, LiveLinkPeer, OpenFacsPeer

from deploy import robots
from deploy.calibration import Calibration, Channel
from deploy.plan import Command
from deploy.robots import RobotLost, _websocket, livelink
from deploy.robots._address import parse
from deploy.robots._outgoing import Pace
from deploy.robots.furhat import FurhatRobot


def whole(calibration: Calibration, value: float, seq: int = 0) -> Command:
    return Command(seq, 0.0, np.full(len(calibration.names), value))


def send_for_ever(robot: Any) -> None:
    for tick in itertools.count(2):
        robot.send(whole(robot.calibration, 0.5, tick), float(tick))


# ---- pace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [10.0, 33.0, 50.0])
def test_however_fast_commands_come_the_wire_gets_its_rate_on_average_and_never_half_a_period(rate_hz: float) -> None:
    pace, rng = Pace(rate_hz), np.random.default_rng(1)
    times_s = np.cumsum(rng.exponential(0.004, 5000))
    gone = np.array([t for t in times_s if pace.due(t)])
    assert np.diff(gone).min() >= 0.5 / rate_hz
    counts = [((gone >= a) & (gone < a + 1)).sum() for a in np.arange(0, times_s[-1] - 1, 0.3)]
    assert max(counts) <= rate_hz + 1.5
    assert np.mean(counts) > 0.9 * rate_hz


# ---- Live Link and OpenFACS -----------------------------------------------------------------------------------------


def test_live_links_values_stand_in_arkits_order_in_314_bytes(tmp_path: Path) -> None:
    assert livelink.NAMES == ARKIT_ORDER
    peer = LiveLinkPeer(tmp_path)
    robot = peer.robot()
    robot.open()
    robot.send(whole(robot.calibration, 1.0), 0.0)
    peer.wait(lambda: bool(peer.came))
    assert len(peer.last_bytes) == 314
    assert peer.came[-1]["HeadYaw"] == peer.came[-1]["TongueOut"] == 0
    robot.close()
    peer.stop()


def test_openfacs_gets_whole_letters_and_zeros_for_what_we_never_move(tmp_path: Path) -> None:
    peer = OpenFacsPeer(tmp_path)
    robot = peer.robot()
    robot.open()
    sent = robot.send(whole(robot.calibration, 0.47), 0.0)
    np.testing.assert_allclose(sent.shares, 0.4)
    peer.wait(lambda: bool(peer.came))
    assert peer.came[-1]["AU12"] == 2
    assert peer.came[-1]["AU28"] == peer.came[-1]["AU45"] == 0
    robot.close()
    peer.stop()


@pytest.mark.parametrize(("name", "word"), [("livelink", "JawOpenn"), ("openfacs", "AU18"), ("dynamixel", "jaw")])
def test_a_channel_that_the_wire_does_not_know_is_refused_by_name(name: str, word: str, tmp_path: Path) -> None:
    text = f"robot: {name}\ndead_time_s: 0\ntime_constant_s: 0\nrest: 0\ngain: 1\ngamma: 1\nvelocity_per_s: 6\n"
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}acceleration_per_s2: 80\nchannels:\n  {word}: {{}}\n", encoding="utf8")
    with pytest.raises(ValueError, match=f"'{word}'"):
        robots.load(f"{name}:/dev/ttyUSB0" if name == "dynamixel" else name, path)


# ---- Furhat ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def furhat(tmp_path: Path) -> Iterator[FurhatPeer]:
    peer = FurhatPeer(tmp_path)
    yield peer
    peer.stop()


def test_furhats_head_moves_ten_times_a_second_and_its_face_fifty(furhat: FurhatPeer) -> None:
    plain = Calibration.load("furhat")
    angles = {"HEAD_YAW": Channel(low=-20, high=20), "HEAD_PITCH": Channel(low=-15, high=15)}
    calibration = dataclasses.replace(plain, channels={**plain.channels, **angles})
    robot = FurhatRobot(calibration, parse("furhat", furhat.address, 9000, ("key",)))
    robot.open()
    sent = []
    for tick in range(100):  # one second at 100 Hz
        sent.append(robot.send(whole(calibration, tick / 100, tick), tick / 100))
        robot._api.line.flush(1.0)
    robot.close()
    kinds = [event["type"] for event in furhat.events]
    assert 48 <= kinds.count("request.face.params") <= 51
    assert 9 <= kinds.count("request.face.headpose") <= 11
    poses = [event["yaw"] for event in furhat.events if event["type"] == "request.face.headpose"]
    yaws = [float(calibration.device_values(one.shares)[-2]) for one in sent]
    assert [yaw for yaw, _ in itertools.groupby(np.round(yaws, 6))] == [pytest.approx(p, abs=1e-6) for p in poses]
    assert kinds[:2] == ["request.auth", "request.face.config"]
    assert furhat.events[1]["microexpressions"] is False


@pytest.mark.parametrize("key", ["", "wrong password"])
def test_a_furhat_that_refuses_the_key_says_so_without_repeating_it(
    furhat: FurhatPeer, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    robot = robots.load(f"furhat:{furhat.address.partition('?')[0]}?key={key.replace(' ', '%20')}")
    with pytest.raises(ValueError, match=r"robot furhat: 127.0.0.1:\d+ refuses the key; .*FURHAT_KEY") as caught:
        robot.open()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("deploy")]
    assert "wrong" not in str(caught.value) + "".join(ours)
    robot.close()


def test_a_key_from_the_environment_opens_a_furhat(furhat: FurhatPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FURHAT_KEY", furhat.KEY)
    robot = robots.load(f"furhat:{furhat.address.partition('?')[0]}")
    robot.open()
    robot.close()
    assert furhat.access


# ---- WebSockets under pressure --------------------------------------------------------------------------------------


def test_a_slow_wire_gets_the_newest_pose_and_nobody_waits_for_it(
    furhat: FurhatPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_websocket, "STUCK_S", 60.0)
    monkeypatch.setattr(_websocket, "SILENT_S", 60.0)
    robot: Any = furhat.robot()
    robot.open()
    furhat.may_read.clear()
    for tick in range(5_000):  # 4 MB, far more than all buffers between here and there
        last = robot.send(whole(robot.calibration, tick / 5_000, tick), float(tick))
        assert len(robot._api.line._slots) <= 2
    furhat.may_read.set()
    values = robot.calibration.device_values(last.shares)
    furhat.wait_for(dict(zip(robot.calibration.names, values.tolist(), strict=True)))
    assert len(furhat.came) < 2_500
    robot.close()


def test_a_wire_that_takes_nothing_any_more_is_lost_and_still_closes(
    furhat: FurhatPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_websocket, "STUCK_S", 0.1)
    monkeypatch.setattr(_websocket, "SILENT_S", 0.1)
    monkeypatch.setattr(_websocket, "PING_S", 0.05)
    robot = furhat.robot()
    robot.open()
    furhat.may_read.clear()
    with pytest.raises(RobotLost, match="robot furhat: the connection"):
        send_for_ever(robot)
    robot.release()
    robot.close()


def test_a_wire_that_took_nothing_for_a_third_of_a_second_is_lost_before_the_newest_pose_comes_as_a_jump(
    furhat: FurhatPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_websocket, "SILENT_S", 60.0)  # no ping decides it
    robot: Any = furhat.robot()
    robot.open()
    furhat.may_read.clear()
    line = robot._api.line
    ticks = itertools.count()
    since_s = time.monotonic()
    while time.monotonic() < since_s + 0.05:  # until all buffers are full
        robot.send(whole(robot.calibration, 0.5, next(ticks)), float(next(ticks)))
        since_s = line._writing_since or time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: since_s + 0.35)
    with pytest.raises(RobotLost, match="takes nothing any more"):
        line.check()
    monkeypatch.undo()
    furhat.may_read.set()
    robot.close()
