"""An Unreal Engine face that listens to the Live Link Face app's protocol, version 6: one datagram per command.

A datagram holds, after the version (the only little-endian number in it), a device id, the subject's name, the frame's
time and 61 floats in ARKit's order: 52 blend shapes, then yaw, pitch and roll of head, left and right eye. Channels are
named as in NAMES; those that the calibration does not list stay 0. Address: `livelink:HOST:PORT?subject=NAME`, by
default 127.0.0.1:11111 and `listener`.  Source: JimWest/PyLiveLinkFace, whose layout this follows.
"""

import struct
import uuid

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback
from deploy.robots._address import Address, parse
from deploy.robots._outgoing import Outgoing
from deploy.robots._udp import Datagrams

PORT = 11111
VERSION = 6
_EYE = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_PAIRS = ("Smile", "Frown", "Dimple", "Stretch")
_LATE_PAIRS = ("Press", "LowerDown", "UpperUp")


def _both(stem: str) -> tuple[str, str]:
    return f"{stem}Left", f"{stem}Right"


NAMES: tuple[str, ...] = (
    *(f"Eye{part}{side}" for side in ("Left", "Right") for part in _EYE),
    *("JawForward", "JawLeft", "JawRight", "JawOpen", "MouthClose", "MouthFunnel", "MouthPucker"),
    *("MouthLeft", "MouthRight", *(name for part in _PAIRS for name in _both(f"Mouth{part}"))),
    *("MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper"),
    *(name for part in _LATE_PAIRS for name in _both(f"Mouth{part}")),
    *(*_both("BrowDown"), "BrowInnerUp", *_both("BrowOuterUp"), "CheekPuff", *_both("CheekSquint")),
    *(*_both("NoseSneer"), "TongueOut"),
    *(f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll")),
)
"""The 61 values of a datagram, in its order."""


def encode(subject: str, frame: int, rate_hz: int, values: NDArray[np.float64]) -> bytes:
    """One datagram; `values` [61] in NAMES' order."""
    device = f"${uuid.uuid5(uuid.NAMESPACE_DNS, subject)}".encode("ascii")
    name = subject.encode("utf8")
    header = struct.pack("<I", VERSION) + device + struct.pack("!i", len(name)) + name
    return header + struct.pack("!IfII", frame, 0.0, rate_hz, 1) + struct.pack("!B61f", len(NAMES), *values)


class LiveLinkRobot:
    """Blend shapes for Unreal Engine."""

    def __init__(self, calibration: Calibration, address: Address) -> None:
        known = dict.fromkeys(NAMES)
        for name in calibration.names:
            if name not in known:
                raise ValueError(
                    f"calibration {calibration.robot}: Live Link has no {name!r}; it has {', '.join(NAMES)}"
                )
        self.calibration = calibration
        self._subject = address.options.get("subject", "listener")
        self._at = [NAMES.index(name) for name in calibration.names]
        self._outgoing = Outgoing(calibration)
        self._wire = Datagrams("livelink", address.host, address.port)
        self._frame = 0

    def open(self) -> None:
        """Resolve the host."""
        self._wire.open()
        self._outgoing.begin()
        self._frame = 0

    def send(self, command: Command, now_s: float) -> Command:
        """One datagram; values are rounded to 32-bit floats."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        values = self._outgoing.values(command).astype(np.float32).astype(float)
        whole = np.zeros(len(NAMES))
        whole[self._at] = values
        self._frame = (self._frame + 1) % 2**32
        taken = self._wire.send(encode(self._subject, self._frame, round(self.calibration.rate_hz), whole))
        return self._outgoing.went(command, values) if taken else self._outgoing.stayed(command)

    def feedback(self, now_s: float) -> Feedback | None:
        """An avatar has no sensors."""

    def release(self) -> None:
        """The avatar keeps its last face, which is the neutral one."""

    def close(self) -> None:
        """Give the socket back."""
        self._outgoing.end()
        self._wire.close()


def make(calibration: Calibration, address: str) -> LiveLinkRobot:
    """Entry point of `deploy.robots.load`."""
    return LiveLinkRobot(calibration, parse("livelink", address, PORT, ("subject",)))
