"""A ROS 2 robot without a ROS installation: its messages straight on DDS, through Eclipse Cyclone DDS.

Topic /name is DDS topic rt/name; commands go BEST_EFFORT, KEEP_LAST 1, VOLATILE, so that the newest wins and nobody is
waited for. DDS has no notion of one partner: a robot that is gone is not noticed here, save by joint states that stop.
Address: `ros2:[INTERFACE][?domain=N&facs=TOPIC&trajectory=TOPIC&states=TOPIC]`. INTERFACE is the address of the network
card, by default 127.0.0.1, this machine alone; anyone on another interface's network may listen and publish, as plain
DDS knows no password. `env` leaves the network to CYCLONEDDS_URI. A ROS node on this machine is looked for as it looks
itself under ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST; set that in its environment.
"""

import os
import time
from typing import Any

import numpy as np

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback, RobotLost, _ros
from deploy.robots._address import HERE, options_of
from deploy.robots._extras import need
from deploy.robots._outgoing import Outgoing
from deploy.robots._ros import OPTIONS, Split, States, Topics

NETWORK = (
    '<CycloneDDS><Domain Id="any"><General><Interfaces><NetworkInterface address="{address}"{here}/></Interfaces>'
    "<AllowMulticast>{multicast}</AllowMulticast></General>"
    "<Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>{peers}</Discovery></Domain></CycloneDDS>"
)
LONGEST_SKEW_S = 0.2
"""Joint states stamped further away than this come from a clock that is not ours."""


def network(interface: str) -> str:
    """Cyclone DDS configuration that speaks on one interface only; on this machine's own, without multicast."""
    if interface != HERE:
        return NETWORK.format(address=interface, here="", multicast="true", peers="")
    peers = f'<Peers><Peer address="{HERE}"/></Peers>'
    return NETWORK.format(address=HERE, here=' multicast="false"', multicast="false", peers=peers)


class Ros2Robot:
    """Action units or joints as ROS 2 messages."""

    def __init__(self, calibration: Calibration, interface: str, options: dict[str, str]) -> None:
        domain = options.get("domain") or os.environ.get("ROS_DOMAIN_ID") or "0"
        if not (domain.isdecimal() and int(domain) <= 232):
            raise ValueError(f"robot ros2: the domain must be 0 to 232, got {domain!r}")
        self.calibration = calibration
        self._interface, self._domain = interface, int(domain)
        self._split = Split(calibration)
        self._topics = Topics.of("ros2", options)
        self._states = States(calibration, self._split)
        self._outgoing = Outgoing(calibration)
        self._entities: dict[str, Any] = {}

    def open(self) -> None:
        """Join the domain, announce the topics, wait a moment for the first joint states; nothing moves."""
        self.close()
        core: Any = need("ros2", "cyclonedds.core", "cyclonedds")
        self._types: Any = need("ros2", "deploy.robots._ros2_types", "cyclonedds")
        self._failure = core.DDSException
        try:
            self._entities = self._join()
        except self._failure as error:
            raise ValueError(
                f"robot ros2: cannot join domain {self._domain} on {self._interface} ({error}); is that the address of "
                "a network interface here?"
            ) from None
        self._states.forget()
        until_s = time.monotonic() + _ros.FIRST_STATE_S
        while self._states.wanted and time.monotonic() < until_s and self.feedback(0.0) is None:
            time.sleep(0.01)
        self._outgoing.begin()

    def _join(self) -> dict[str, Any]:
        domain: Any = need("ros2", "cyclonedds.domain", "cyclonedds")
        entities: dict[str, Any] = {}
        if self._interface != "env":
            entities["domain"] = domain.Domain(self._domain, network(self._interface))
        participant = entities["participant"] = domain.DomainParticipant(self._domain)
        if self._split.units:
            entities["facs"] = self._writer(participant, self._topics.facs, self._types.FacialActionUnits)
        if self._split.joints:
            entities["trajectory"] = self._writer(participant, self._topics.trajectory, self._types.JointTrajectory)
        if self._states.wanted:
            entities["states"] = self._reader(participant, self._topics.states, self._types.JointState)
        return entities

    def _quality(self) -> Any:
        core: Any = need("ros2", "cyclonedds.core", "cyclonedds")
        policy = core.Policy
        return core.Qos(policy.Reliability.BestEffort, policy.History.KeepLast(1), policy.Durability.Volatile)

    def _writer(self, participant: Any, topic: str, kind: Any) -> Any:
        pub: Any = need("ros2", "cyclonedds.pub", "cyclonedds")
        return pub.DataWriter(participant, self._topic(participant, topic, kind), qos=self._quality())

    def _reader(self, participant: Any, topic: str, kind: Any) -> Any:
        sub: Any = need("ros2", "cyclonedds.sub", "cyclonedds")
        return sub.DataReader(participant, self._topic(participant, topic, kind), qos=self._quality())

    def _topic(self, participant: Any, topic: str, kind: Any) -> Any:
        topics: Any = need("ros2", "cyclonedds.topic", "cyclonedds")
        return topics.Topic(participant, f"rt{topic}", kind)

    def send(self, command: Command, now_s: float) -> Command:
        """One message for the units (32-bit floats), one for the joints."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        values = self._outgoing.values(command)
        for c, _ in self._split.units:
            values[c] = np.float32(values[c])
        try:
            if self._split.units:
                self._entities["facs"].write(self._facs(values))
            if self._split.joints:
                self._entities["trajectory"].write(self._trajectory(values))
        except self._failure as error:
            raise RobotLost(f"robot ros2: DDS refused a message ({error})") from error
        return self._outgoing.went(command, values)

    def _header(self, nanoseconds: int) -> Any:
        return self._types.Header(self._types.Time(*divmod(nanoseconds, 10**9)), "")

    def _facs(self, values: np.ndarray) -> Any:
        return self._types.FacialActionUnits(self._header(time.time_ns()), *self._split.intensities(values))

    def _trajectory(self, values: np.ndarray) -> Any:
        """A stamp of zero means: begin at once."""
        soon = self._types.Duration(*divmod(round(1e9 / self.calibration.rate_hz), 10**9))
        positions = [float(values[c]) for c, _ in self._split.joints]
        point = self._types.JointTrajectoryPoint(positions, [], [], [], soon)
        return self._types.JointTrajectory(self._header(0), [name for _, name in self._split.joints], [point])

    def feedback(self, now_s: float) -> Feedback | None:
        """Joint states, where every channel is a joint and has been heard lately."""
        reader = self._entities.get("states")
        if reader is None:
            return None
        heard_s = time.monotonic()
        for state in self._taken(reader):
            if not isinstance(state, self._types.JointState):
                continue  # word that a publisher has left
            age_s = (time.time_ns() - state.sample_info.source_timestamp) / 1e9
            at_s = heard_s - age_s if 0 <= age_s <= LONGEST_SKEW_S else heard_s
            self._states.hear(state.name, state.position, at_s)
        return self._states.feedback(now_s, heard_s)

    def _taken(self, reader: Any) -> list[Any]:
        try:
            return reader.take(N=16)
        except self._failure as error:
            raise RobotLost(f"robot ros2: DDS gave no joint states ({error})") from error

    def release(self) -> None:
        """Nothing to switch off: the robot keeps its last pose, which is the neutral one."""

    def close(self) -> None:
        """Leave the domain."""
        self._outgoing.end()
        self._entities = {}


def make(calibration: Calibration, address: str) -> Ros2Robot:
    """Entry point of `deploy.robots.load`."""
    interface, _, query = address.partition("?")
    return Ros2Robot(calibration, interface or HERE, options_of("ros2", query, ("domain", *OPTIONS)))
