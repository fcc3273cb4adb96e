"""What every robot's wire ends in during tests: a peer per robot, speaking the real transport on this machine.

A peer decodes what arrives into {channel: value in the device's unit}; it is strict, so that a message that the real
device would refuse fails a test. `PEERS` has one for every file in deploy/robots; the contract test insists on it.
"""

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
from robot_peer import PATIENCE_S, Peer, Values
from robot_peers_web import FurhatPeer, RosbridgePeer
from robot_servos import TORQUE, WATCHDOG, Bus

from deploy.robots import Robot

ARKIT_ORDER = tuple(
    """
EyeBlinkLeft EyeLookDownLeft EyeLookInLeft EyeLookOutLeft EyeLookUpLeft EyeSquintLeft EyeWideLeft
EyeBlinkRight EyeLookDownRight EyeLookInRight EyeLookOutRight EyeLookUpRight EyeSquintRight EyeWideRight
JawForward JawLeft JawRight JawOpen MouthClose MouthFunnel MouthPucker MouthLeft MouthRight
MouthSmileLeft MouthSmileRight MouthFrownLeft MouthFrownRight MouthDimpleLeft MouthDimpleRight
MouthStretchLeft MouthStretchRight MouthRollLower MouthRollUpper MouthShrugLower MouthShrugUpper
MouthPressLeft MouthPressRight MouthLowerDownLeft MouthLowerDownRight MouthUpperUpLeft MouthUpperUpRight
BrowDownLeft BrowDownRight BrowInnerUp BrowOuterUpLeft BrowOuterUpRight CheekPuff CheekSquintLeft CheekSquintRight
NoseSneerLeft NoseSneerRight TongueOut
HeadYaw HeadPitch HeadRoll LeftEyeYaw LeftEyePitch LeftEyeRoll RightEyeYaw RightEyePitch RightEyeRoll
""".split()  # noqa: SIM905 - a table reads better
)
"""As Live Link Face sends them; written out, where the robot's own list is built."""


class NullPeer(Peer):
    """Nobody."""

    name = "null"
    arrives = False


class SimPeer(Peer):
    """The simulated head itself: what its servos are told."""

    name = "sim"

    def robot(self) -> Robot:
        self._robot: Any = super().robot()
        return self._robot

    def wait_for(self, values: Values) -> None:
        control = self._robot._physics._data.ctrl
        np.testing.assert_allclose(control, list(values.values()), atol=1e-9)
        self.came.append(values)


class UdpPeer(Peer):
    """A bound UDP socket and a decoder."""

    def start(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, args=(self.socket,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.socket.getsockname()[1]}"

    def _serve(self, wire: socket.socket) -> None:
        while data := wire.recv(65536):
            self.take(self.decode(data))

    def decode(self, data: bytes) -> Values:
        raise NotImplementedError

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.socket.getsockname())
        self._thread.join()
        self.socket.close()


class LiveLinkPeer(UdpPeer):
    """Reads the datagram field by field, with the names as Epic's app lists them."""

    name = "livelink"
    ORDER = ARKIT_ORDER
    last_bytes = b""

    def decode(self, data: bytes) -> Values:
        self.last_bytes = data
        assert struct.unpack_from("<i", data)[0] == 6
        assert data[4:5] == b"$"
        assert len(data[5:41].decode("ascii").split("-")) == 5
        (length,) = struct.unpack_from("!i", data, 41)
        assert data[45 : 45 + length].decode("utf8") == "listener"
        _, _, fps, denominator, count = struct.unpack_from("!if2ib", data, 45 + length)
        assert (fps, denominator, count) == (60, 1, 61)
        values = struct.unpack("!61f", data[45 + length + 17 :])
        return dict(zip(self.ORDER, values, strict=True))


class OpenFacsPeer(UdpPeer):
    """Reads as its C++ does: every unit a whole number, all of them there, less than 1024 bytes."""

    name = "openfacs"
    UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45))

    def decode(self, data: bytes) -> Values:
        assert len(data) < 1024
        said = json.loads(data)
        assert 0 < said.pop("Speed") <= 1
        assert tuple(said) == self.UNITS
        assert all(isinstance(v, int) and 0 <= v <= 5 for v in said.values())
        return said


class OscPeer(Peer):
    """python-osc's own server and dispatcher; a face counts once it is applied."""

    name = "osc"

    def start(self) -> None:
        from pythonosc.dispatcher import Dispatcher
        from pythonosc.osc_server import BlockingOSCUDPServer

        self._pending: Values = {}
        dispatcher = Dispatcher()
        dispatcher.map("/VMC/Ext/Blend/Val", lambda _, name, value: self._pending.update({name: value}))
        dispatcher.map("/VMC/Ext/Blend/Apply", lambda *_: self.take(dict(self._pending)))
        dispatcher.map("/VMC/Ext/OK", lambda *_: None)
        dispatcher.set_default_handler(lambda path, *_: self.complain(path))
        self._server = BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Ros2Peer(Peer):
    """A subscriber in a process of its own, on a domain of its own; see `_listen_to_dds`."""

    name = "ros2"

    def start(self) -> None:
        self.domain = 100 + (id(self) // 64 + int(time.time_ns())) % 100
        self.matched = set[str]()
        code = f"import sys; sys.path[:0] = {sys.path!r}; import robot_peers; robot_peers.listen_to_dds({self.domain})"
        line = [sys.executable, "-c", code]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if isinstance(said, dict):
                self.take(said)
            else:
                self.matched = set(said)

    @property
    def address(self) -> str:
        return f"?domain={self.domain}"

    def ready(self, robot: Robot) -> None:
        writers: dict[str, Any] = robot._entities  # type: ignore[attr-defined]
        deadline = time.monotonic() + PATIENCE_S
        for name in writers.keys() & {"facs", "trajectory"}:  # both ends must know of each other
            while not (writers[name].get_matched_subscriptions() and name in self.matched):
                assert time.monotonic() < deadline, "nobody discovered anybody"
                threading.Event().wait(0.01)

    def stop(self) -> None:
        self.process.communicate("", timeout=PATIENCE_S)


def listen_to_dds(domain: int) -> None:
    """Print every message on both topics as JSON, and a list of the topics that have a sender whenever it changes.

    Publishes joint states that follow; ends with standard input.
    """
    from cyclonedds.core import Policy, Qos
    from cyclonedds.domain import Domain, DomainParticipant
    from cyclonedds.pub import DataWriter
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic

    from deploy.robots import _ros2_types as types
    from deploy.robots.ros2 import network

    own = Domain(domain, network("127.0.0.1"))
    participant = DomainParticipant(domain)
    quality = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(16))
    facs = DataReader(participant, Topic(participant, "rt/robot_face/facs", types.FacialActionUnits), qos=quality)
    topic = Topic(participant, "rt/head_controller/joint_trajectory", types.JointTrajectory)
    trajectory = DataReader(participant, topic, qos=quality)
    states = DataWriter(participant, Topic(participant, "rt/joint_states", types.JointState), qos=quality)
    print("ready", flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    known: list[str] = []
    while not ended.wait(0.005):
        readers = {"facs": facs, "trajectory": trajectory}
        if (matched := [name for name, reader in readers.items() if reader.get_matched_publications()]) != known:
            known = matched
            print(json.dumps(known), flush=True)
        for one in (s for s in facs.take(N=16) if isinstance(s, types.FacialActionUnits)):
            print(json.dumps({f"AU{i}": v for i, v in enumerate(one.intensity) if one.confidence[i]}), flush=True)
        for one in (s for s in trajectory.take(N=16) if isinstance(s, types.JointTrajectory)):
            said = dict(zip(one.joint_names, one.points[-1].positions, strict=True))
            print(json.dumps(said), flush=True)
            states.write(types.JointState(one.header, list(said), list(said.values()), [], []))
    del own


class LslPeer(Peer):
    """An inlet, as a recorder would open it."""

    name = "lsl"

    def ready(self, robot: Robot) -> None:
        import pylsl

        source = robot._outlet.get_info().source_id()  # type: ignore[attr-defined]
        found = pylsl.resolve_byprop("source_id", source, timeout=PATIENCE_S)
        self._inlet = pylsl.StreamInlet(found[0], max_buflen=1)
        self._inlet.open_stream(timeout=PATIENCE_S)
        channel = self._inlet.info().desc().child("channels").child("channel")
        self.labels = []
        while not channel.empty():
            self.labels.append(channel.child_value("label"))
            channel = channel.next_sibling()

    def wait_for(self, values: Values) -> None:
        sample, _ = self._inlet.pull_sample(timeout=PATIENCE_S)
        while sample is not None:
            self.came.append(dict(zip(self.labels, sample, strict=True)))
            if all(abs(self.came[-1][n] - v) < 1e-6 for n, v in values.items()):
                return
            sample, _ = self._inlet.pull_sample(timeout=PATIENCE_S)
        raise AssertionError("it never came")

    def stop(self) -> None:
        if inlet := getattr(self, "_inlet", None):
            inlet.close_stream()


class DynamixelPeer(Peer):
    """Servos on a pseudo-terminal."""

    name = "dynamixel"
    notices_loss = refuses_absence = True

    def start(self) -> None:
        from deploy.robots.dynamixel import servo_ids

        self.names = dict(zip(servo_ids(self.calibration), self.calibration.names, strict=True))
        self.bus = Bus(self.folder, list(self.names))
        self.change = self.bus.change

    @property
    def address(self) -> str:
        return str(self.bus.path)

    @property
    def came(self) -> list[Values]:
        """The goal written at `open` is where the servos stand, not a command."""
        return [{self.names[i]: float(v) for i, v in goal.items()} for goal in self.bus.goals]

    @came.setter
    def came(self, _: list[Values]) -> None: ...

    def drop(self) -> None:
        self.bus.pull()
        self.bus.plug()

    def stop(self) -> None:
        self.bus.pull()

    def released(self) -> bool:
        return not any(s.get(TORQUE, 1) or s.get(WATCHDOG, 1) for s in self.bus.servos.values())


PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        *(NullPeer, SimPeer, OscPeer, LiveLinkPeer, OpenFacsPeer, FurhatPeer, RosbridgePeer, Ros2Peer, LslPeer),
        DynamixelPeer,
    )
}
