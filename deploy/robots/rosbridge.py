"""Any ROS 1 or ROS 2 robot behind a rosbridge server: JSON operations on a WebSocket.

Address: `rosbridge:HOST[:PORT][?facs=TOPIC&trajectory=TOPIC&states=TOPIC&token=TOKEN]`, port 9090; `wss://` in front of
the host for an encrypted one. rosbridge itself asks for no password: a token (or ROSBRIDGE_TOKEN) goes as a bearer
header to whatever guards it. Channel names decide between action units and joints (see _ros.py).
"""

import json
import os
import time
from typing import Any

import numpy as np

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback, RobotLost, _ros
from deploy.robots._address import Address, parse
from deploy.robots._outgoing import Outgoing
from deploy.robots._ros import OPTIONS, Split, States, Topics
from deploy.robots._websocket import Line

PORT = 9090
FACS = "hri_msgs/msg/FacialActionUnits"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
STATES = "sensor_msgs/msg/JointState"
DIGITS = 5


class RosbridgeRobot:
    """Action units or joints through rosbridge."""

    def __init__(self, calibration: Calibration, address: Address, token: str) -> None:
        self.calibration = calibration
        self._split = Split(calibration)
        self._topics = Topics.of("rosbridge", dict(address.options))
        self._states = States(calibration, self._split)
        self._outgoing = Outgoing(calibration)
        url = f"{'wss' if address.secure else 'ws'}://{address.shown}/"
        headers = {"Authorization": f"Bearer {token}"} if token else None
        self._line = Line("rosbridge", url, self._hear, headers=headers)

    def _hear(self, text: str) -> None:
        said: Any = json.loads(text)
        if isinstance(said, dict) and said.get("op") == "publish" and said.get("topic") == self._topics.states:
            self._states.hear(said["msg"]["name"], said["msg"]["position"], time.monotonic())

    def _do(self, kind: str, operation: str, topic: str, **fields: object) -> None:
        self._line.put(kind, json.dumps({"op": operation, "topic": topic, **fields}))

    def open(self) -> None:
        """Connect, announce the topics, wait a moment for the first joint states; nothing moves."""
        self.close()
        self._states.forget()
        self._line.open()
        if self._split.units:
            self._do("advertise facs", "advertise", self._topics.facs, type=FACS)
        if self._split.joints:
            self._do("advertise trajectory", "advertise", self._topics.trajectory, type=TRAJECTORY)
        if self._states.wanted:
            self._do("subscribe", "subscribe", self._topics.states, type=STATES, throttle_rate=0, queue_length=1)
            self._line.wait_for(lambda: self._sensed() is not None, _ros.FIRST_STATE_S)
        self._outgoing.begin()

    def send(self, command: Command, now_s: float) -> Command:
        """One message for the units, one for the joints; rounded to five digits."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        values = np.round(self._outgoing.values(command), DIGITS)
        if self._split.units:
            self._do("facs", "publish", self._topics.facs, msg=self._facs(values))
        if self._split.joints:
            self._do("trajectory", "publish", self._topics.trajectory, msg=self._trajectory(values))
        return self._outgoing.went(command, values)

    def _facs(self, values: np.ndarray) -> dict[str, object]:
        nanoseconds = time.time_ns()
        stamp = {"sec": nanoseconds // 10**9, "nanosec": nanoseconds % 10**9}
        intensity, confidence = self._split.intensities(values)
        return {"header": {"stamp": stamp, "frame_id": ""}, "intensity": intensity, "confidence": confidence}

    def _trajectory(self, values: np.ndarray) -> dict[str, object]:
        """A stamp of zero means: begin at once."""
        period_ns = round(1e9 / self.calibration.rate_hz)
        point = {
            "positions": [float(values[c]) for c, _ in self._split.joints],
            "time_from_start": {"sec": period_ns // 10**9, "nanosec": period_ns % 10**9},
        }
        header = {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": ""}
        return {"header": header, "joint_names": [name for _, name in self._split.joints], "points": [point]}

    def feedback(self, now_s: float) -> Feedback | None:
        """Joint states, where every channel is a joint and has been heard lately."""
        self._line.check()
        return self._sensed(now_s)

    def _sensed(self, now_s: float = 0.0) -> Feedback | None:
        return self._states.feedback(now_s, time.monotonic())

    def release(self) -> None:
        """Withdraw from the topics; the robot keeps its last pose, which is the neutral one."""
        try:
            for topic, used in ((self._topics.facs, self._split.units), (self._topics.trajectory, self._split.joints)):
                if used:
                    self._do(f"unadvertise {topic}", "unadvertise", topic)
        except RobotLost:
            return
        self._line.flush(0.5)

    def close(self) -> None:
        """Hang up."""
        self._outgoing.end()
        self._line.close()


def make(calibration: Calibration, address: str) -> RosbridgeRobot:
    """Entry point of `deploy.robots.load`."""
    where = parse("rosbridge", address, PORT, (*OPTIONS, "token"))
    return RosbridgeRobot(calibration, where, where.options.get("token") or os.environ.get("ROSBRIDGE_TOKEN", ""))
