"""A virtual avatar that listens to VMC (Virtual Motion Capture) over OSC: one bundle of blend shapes per command.

A bundle holds `/VMC/Ext/Blend/Val name value` for every channel, then `/VMC/Ext/Blend/Apply`, and `/VMC/Ext/OK 1`, so
that a receiver never shows half a face. Channel names are the avatar's own blend shapes; the calibration has the
PerfectSync ones. Address: `osc:HOST:PORT`, by default 127.0.0.1:39539.
"""

from typing import Any

import numpy as np

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback
from deploy.robots._address import Address, parse
from deploy.robots._extras import need
from deploy.robots._outgoing import Outgoing
from deploy.robots._udp import Datagrams

PORT = 39539


class OscRobot:
    """Blend shapes over OSC."""

    def __init__(self, calibration: Calibration, address: Address) -> None:
        self.calibration = calibration
        self._outgoing = Outgoing(calibration)
        self._wire = Datagrams("osc", address.host, address.port)
        self._builder: Any = None

    def open(self) -> None:
        """Load the encoder and resolve the host."""
        self._builder = need("osc", "pythonosc.osc_message_builder", "python-osc").OscMessageBuilder
        self._bundle = need("osc", "pythonosc.osc_bundle_builder", "python-osc")
        self._wire.open()
        self._outgoing.begin()

    def _message(self, path: str, *arguments: tuple[str | float | int, str]) -> Any:
        message = self._builder(path)
        for value, kind in arguments:
            message.add_arg(value, kind)
        return message.build()

    def encode(self, values: np.ndarray) -> bytes:
        """One bundle for the values [C]."""
        bundle = self._bundle.OscBundleBuilder(self._bundle.IMMEDIATELY)
        bundle.add_content(self._message("/VMC/Ext/OK", (1, "i")))
        for name, value in zip(self.calibration.names, values, strict=True):
            bundle.add_content(self._message("/VMC/Ext/Blend/Val", (name, "s"), (float(value), "f")))
        bundle.add_content(self._message("/VMC/Ext/Blend/Apply"))
        return bundle.build().dgram

    def send(self, command: Command, now_s: float) -> Command:
        """One datagram; values are rounded to 32-bit floats."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        values = self._outgoing.values(command).astype(np.float32).astype(float)
        taken = self._wire.send(self.encode(values))
        return self._outgoing.went(command, values) if taken else self._outgoing.stayed(command)

    def feedback(self, now_s: float) -> Feedback | None:
        """An avatar has no sensors."""

    def release(self) -> None:
        """The avatar keeps its last face, which is the neutral one."""

    def close(self) -> None:
        """Give the socket back."""
        self._outgoing.end()
        self._wire.close()


def make(calibration: Calibration, address: str) -> OscRobot:
    """Entry point of `deploy.robots.load`."""
    return OscRobot(calibration, parse("osc", address, PORT))
