"""OpenFACS, a FACS-driven face on Unreal Engine: one JSON datagram of action units per command.

Its receiver reads 18 units as whole numbers from 0 to 5 (FACS letters A to E), each of them in every datagram of less
than 1024 bytes, and `Speed`, the share of the remaining way that its face goes per rendered picture: our motion is
smooth already, so it only blurs the six steps of a unit. AU18 is unknown to it; AU28 and AU45 are sent as 0.
Address: `openfacs:HOST:PORT`, by default 127.0.0.1:5000.  Source: phuselab/openFACS, its receiver's C++.
"""

import json

import numpy as np

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback
from deploy.robots._address import Address, parse
from deploy.robots._outgoing import Outgoing
from deploy.robots._udp import Datagrams

PORT = 5000
UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45))
"""What a datagram must hold; a missing unit would be an error at the other end."""
SPEED = 0.5


class OpenFacsRobot:
    """Whole-number action units for OpenFACS."""

    def __init__(self, calibration: Calibration, address: Address) -> None:
        for name in calibration.names:
            if name not in UNITS:
                raise ValueError(
                    f"calibration {calibration.robot}: OpenFACS has no {name!r}; it has {', '.join(UNITS)}"
                )
        self.calibration = calibration
        self._outgoing = Outgoing(calibration)
        self._wire = Datagrams("openfacs", address.host, address.port)

    def open(self) -> None:
        """Resolve the host."""
        self._wire.open()
        self._outgoing.begin()

    def send(self, command: Command, now_s: float) -> Command:
        """One datagram; values are rounded to whole numbers."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        values = np.rint(self._outgoing.values(command))
        units = dict.fromkeys(UNITS, 0) | {n: int(v) for n, v in zip(self.calibration.names, values, strict=True)}
        taken = self._wire.send(json.dumps(units | {"Speed": SPEED}).encode("ascii"))
        return self._outgoing.went(command, values) if taken else self._outgoing.stayed(command)

    def feedback(self, now_s: float) -> Feedback | None:
        """An avatar has no sensors."""

    def release(self) -> None:
        """The avatar keeps its last face, which is the neutral one."""

    def close(self) -> None:
        """Give the socket back."""
        self._outgoing.end()
        self._wire.close()


def make(calibration: Calibration, address: str) -> OpenFacsRobot:
    """Entry point of `deploy.robots.load`."""
    return OpenFacsRobot(calibration, parse("openfacs", address, PORT))
