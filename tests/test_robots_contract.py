"""One promise for all robots, each kept over its own wire: a socket, a WebSocket, DDS, LSL or a pseudo-terminal."""

import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robot_peers import PEERS, Peer

from deploy import robots
from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import NotReleased, Robot, RobotLost

ALL = sorted(PEERS)
LOSABLE = sorted(name for name, peer in PEERS.items() if peer.notices_loss)
WIRED = [name for name in ALL if name not in ("null", "sim")]
PACKAGES = {
    "dynamixel": ("dynamixel_sdk", "dynamixel-sdk"),
    "furhat": ("websockets.sync.client", "websockets"),
    "lsl": ("pylsl", "pylsl"),
    "osc": ("pythonosc.osc_message_builder", "python-osc"),
    "ros2": ("cyclonedds.core", "cyclonedds"),
    "rosbridge": ("websockets.sync.client", "websockets"),
}
ABSENT = {"furhat": "127.0.0.1:9", "rosbridge": "127.0.0.1:9", "dynamixel": "/nowhere/ttyUSB0"}


@pytest.fixture
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    peer = PEERS[request.param](tmp_path)
    yield peer
    peer.stop()
    assert not peer.complaints


@pytest.fixture
def robot(peer: Peer) -> Iterator[Robot]:
    robot = peer.robot()
    robot.open()
    peer.ready(robot)
    yield robot
    robot.close()


def over(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("peer", names, indirect=True)


def command(calibration: Calibration, seed: int, seq: int = 0) -> Command:
    """A pose anywhere within the channels' travel."""
    low = np.where(calibration.one_way, 0.0, -1.0)
    return Command(seq, 0.0, np.random.default_rng(seed).uniform(low, 1.0))


def told(robot: Robot, sent: Command) -> dict[str, float]:
    """What the device should have been told, channel by channel, in its own unit."""
    values = robot.calibration.device_values(sent.shares)
    return {n: float(v) for n, v in zip(robot.calibration.names, values, strict=True)}


def test_every_robot_has_a_peer_that_it_is_tested_against() -> None:
    assert set(PEERS) == set(robots.available())


@over(ALL)
def test_what_arrives_is_what_send_says_it_sent(peer: Peer, robot: Robot) -> None:
    for seed in range(3):
        asked = command(robot.calibration, seed, seq=seed)
        sent = robot.send(asked, float(seed))
        assert sent.seq == seed
        np.testing.assert_allclose(sent.shares, asked.shares, atol=0.11)  # OpenFACS knows six steps
        if peer.arrives:
            peer.wait_for(told(robot, sent))


@over(ALL)
def test_the_neutral_command_arrives_as_the_neutral_face(peer: Peer, robot: Robot) -> None:
    robot.send(command(robot.calibration, 1), 0.0)
    sent = robot.send(Command(1, 1.0, np.zeros(len(robot.calibration.names))), 1.0)
    assert not sent.shares.any()
    if peer.arrives:
        peer.wait_for({n: c.neutral for n, c in robot.calibration.channels.items()})


@over(WIRED)
def test_commands_faster_than_the_wire_are_held_back_and_the_newest_goes_next(peer: Peer, robot: Robot) -> None:
    first = robot.send(command(robot.calibration, 0), 0.0)
    peer.wait_for(told(robot, first))
    period_s = 1 / robot.calibration.rate_hz
    for seq in range(1, 20):
        assert robot.send(command(robot.calibration, seq, seq), 0.02 * seq * period_s) is first
    last = robot.send(command(robot.calibration, 20, 20), period_s)
    peer.wait_for(told(robot, last))
    assert len(peer.came) == 2


@over(WIRED)
def test_a_tick_that_comes_unevenly_is_not_halved(peer: Peer, robot: Robot) -> None:
    period_s, unsteady = 1 / robot.calibration.rate_hz, np.random.default_rng(0).uniform(-0.3, 0.3, 200)
    times_s = (np.arange(200) + unsteady) * period_s
    sent = [robot.send(command(robot.calibration, 0, seq), t) for seq, t in enumerate(times_s)]
    assert len({one.seq for one in sent}) > 190


@over(WIRED)
def test_a_command_beyond_the_ends_of_travel_stops_there(peer: Peer, robot: Robot) -> None:
    sent = robot.send(Command(0, 0.0, np.full(len(robot.calibration.names), 7.0)), 0.0)
    np.testing.assert_allclose(sent.shares, 1)
    sent = robot.send(Command(1, 0.0, np.full(len(robot.calibration.names), -7.0)), 1.0)
    np.testing.assert_allclose(sent.shares, np.where(robot.calibration.one_way, 0, -1))


@over(ALL)
def test_release_does_what_the_wire_promises(peer: Peer, robot: Robot) -> None:
    robot.send(command(robot.calibration, 0), 0.0)
    robot.release()
    peer.wait(peer.released)


@over(ALL)
def test_a_robot_closes_twice_and_unopened_and_opens_again(peer: Peer) -> None:
    robot = peer.robot()
    robot.close()
    for _ in range(2):
        robot.open()
        robot.release()
        robot.close()
        robot.close()


@over(WIRED)
def test_a_robot_that_is_not_open_says_so(peer: Peer) -> None:
    robot = peer.robot()
    for _ in range(2):
        with pytest.raises(RobotLost, match=f"robot {peer.name} is not open"):
            robot.send(command(robot.calibration, 0), 0.0)
        robot.open()
        robot.close()
        let_go(robot)


def let_go(robot: Robot) -> None:
    """Of a robot that is gone: it says that it may hold on, or has nothing to hold with."""
    with contextlib.suppress(NotReleased):
        robot.release()


def send_for_ever(robot: Robot) -> None:
    for tick in itertools.count(1):
        robot.send(command(robot.calibration, 0, tick), float(tick))


@over(LOSABLE)
def test_a_lost_robot_is_noticed_and_opens_again(peer: Peer, robot: Robot) -> None:
    robot.send(command(robot.calibration, 0), 0.0)
    peer.drop()
    with pytest.raises(RobotLost, match=f"robot {peer.name}") as caught:
        send_for_ever(robot)
    assert "\n" not in str(caught.value)
    let_go(robot)
    robot.open()
    peer.ready(robot)
    peer.wait_for(told(robot, robot.send(command(robot.calibration, 5), 0.0)))


@over([name for name in WIRED if name not in LOSABLE])
def test_a_wire_that_cannot_know_goes_on_when_nobody_listens(peer: Peer, robot: Robot) -> None:
    peer.stop()
    for tick in range(20):
        assert robot.send(command(robot.calibration, tick, tick), float(tick)).seq == tick
    peer.start()


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_a_robot_that_is_not_there_is_refused_with_one_sentence(name: str) -> None:
    robot = robots.load(f"{name}:{ABSENT[name]}")
    with pytest.raises(ValueError, match=f"robot {name}: .*{ABSENT[name]}") as caught:
        robot.open()
    assert "\n" not in str(caught.value)
    robot.close()


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_missing_package_is_asked_for_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, package = PACKAGES[name]
    monkeypatch.setitem(sys.modules, module, None)
    robot = robots.load(f"{name}:{ABSENT.get(name, '')}")
    with pytest.raises(ValueError, match=rf"^robot {name} needs {package}; install it with: uv sync --extra {name}$"):
        robot.open()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("osc:host:port", "wanted an address such as 127.0.0.1:39539.*'host:port'"),
        ("livelink:::1", "brackets"),
        ("osc:a..b:39539", "wanted an address such as"),
        ("openfacs:127.0.0.1:", "127.0.0.1:5000"),
        ("openfacs:127.0.0.1:99999", "127.0.0.1:5000"),
        ("osc:127.0.0.1?speed=3", "unknown option 'speed'"),
        ("furhat:host?kye=secret", "unknown option 'kye'.*did you mean 'key'"),
        ("rosbridge:host?facs=face facs", "wanted a topic"),
        ("ros2:?domain=300", "0 to 232"),
        ("lsl:elsewhere", "no address but `network`"),
        ("sim:live", "takes no address, got 'live'"),
        ("dynamixel", "serial port behind a colon"),
        ("dynamixel:/dev/ttyUSB0?baud=57600", "1000000 baud or more"),
    ],
)
def test_an_address_that_is_not_understood_is_refused_before_anything_is_opened(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        robots.load(name)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shown"), [("osc", "127.0.0.1:39539"), ("osc:[::1]", "[::1]:39539"), ("furhat://hal?key=k", "hal:9000")]
)
def test_an_address_defaults_to_this_machine_and_the_wires_own_port(name: str, shown: str) -> None:
    from deploy.robots._address import parse

    kind, _, text = name.partition(":")
    port: Any = {"osc": 39539, "furhat": 9000}[kind]
    assert parse(kind, text.removeprefix("//"), port, ("key",)).shown == shown
