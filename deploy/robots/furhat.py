"""Furhat's projected face and neck over its Realtime API: JSON events on a WebSocket.

Face parameters hold their value until changed, so a command is one `request.face.params`, at most 50 a second; channels
called HEAD_YAW, HEAD_PITCH and HEAD_ROLL (degrees) travel as `request.face.headpose`, at most 10 a second. Furhat's own
small expressions are off while we move the face, its blinking and its gaze stay on; `release` resets the face and
switches everything back on. Address: `furhat:HOST[:PORT][?key=KEY]`, port 9000; the key may be in FURHAT_KEY instead.
The robot's protocol has no encryption: whoever is on its network can read the key.
"""

import numpy as np

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback, RobotLost
from deploy.robots._address import Address, parse
from deploy.robots._furhat import PORT, RealtimeApi
from deploy.robots._outgoing import Outgoing, Pace

HEAD = {"HEAD_YAW": "yaw", "HEAD_PITCH": "pitch", "HEAD_ROLL": "roll"}
HEAD_HZ = 10.0
DIGITS = 4


class FurhatRobot:
    """A Furhat, real or virtual."""

    def __init__(self, calibration: Calibration, address: Address) -> None:
        self.calibration = calibration
        self._shown = address.shown
        self._outgoing = Outgoing(calibration)
        self._api = RealtimeApi(address)
        self._head_pace = Pace(HEAD_HZ)
        self._head = {HEAD[name]: c for c, name in enumerate(calibration.names) if name in HEAD}
        self._face = [(c, name) for c, name in enumerate(calibration.names) if name not in HEAD]

    def open(self) -> None:
        """Connect and be let in; nothing moves."""
        self.close()
        self._api.open(f"robot furhat: {self._shown}")
        self._head_pace = Pace(HEAD_HZ)
        self._outgoing.begin()

    def send(self, command: Command, now_s: float) -> Command:
        """One event for the face, and one for the head where the calibration has one; rounded to four digits."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        values = np.round(self._outgoing.values(command), DIGITS)
        if self._outgoing.last is None:
            self._api.put("request.face.config", microexpressions=False)
        if self._head:
            values = self._send_head(values, now_s)
        params = {name: float(values[c]) for c, name in self._face}
        self._api.put("request.face.params", "params", params=params)
        return self._outgoing.went(command, values)

    def _send_head(self, values: np.ndarray, now_s: float) -> np.ndarray:
        """The values that are true now: a head that is not due keeps its last pose."""
        if self._head_pace.due(now_s):
            pose = {angle: float(values[c]) for angle, c in self._head.items()}
            whole = dict.fromkeys(HEAD.values(), 0.0) | pose
            self._api.put("request.face.headpose", relative=False, **whole)
        elif self._outgoing.last is not None:
            before = self.calibration.device_values(self._outgoing.last.shares)
            rows = list(self._head.values())
            values[rows] = before[rows]
        return values

    def feedback(self, now_s: float) -> Feedback | None:
        """The API reports no pose."""

    def release(self) -> None:
        """The face back to its default, the robot's own liveliness back on."""
        try:
            self._api.put("request.face.reset", "params")
            self._api.put("request.face.config", microexpressions=True, blinking=True)
        except RobotLost:
            return
        self._api.line.flush(0.5)

    def close(self) -> None:
        """Hang up."""
        self._outgoing.end()
        self._api.line.close()


def make(calibration: Calibration, address: str) -> FurhatRobot:
    """Entry point of `deploy.robots.load`."""
    return FurhatRobot(calibration, parse("furhat", address, PORT, ("key",)))
