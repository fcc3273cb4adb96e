"""A Lab Streaming Layer outlet: what the face was told, for recorders, EEG synchronisation and user studies.

One stream of type AU, one float per channel with its name in the description, stamped by LSL's own clock, so that a
study can align the face with everything else it records. Nobody is commanded: whoever listens, listens.
Address: `lsl:` announces the stream on this machine alone; `lsl:network` leaves that to LSL's own configuration. LSL
serves its data on all interfaces, without a password, to whoever knows the port.
"""

import itertools
import os

import numpy as np

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import Feedback
from deploy.robots._extras import need
from deploy.robots._outgoing import Outgoing

HERE_ONLY = "[ports]\nIPv6 = disable\n[multicast]\nResolveScope = machine\n[log]\nlevel = -1\n"
_COUNT = itertools.count()


class LslRobot:
    """An outlet; it never knows whether anyone records."""

    def __init__(self, calibration: Calibration, *, network: bool) -> None:
        self.calibration = calibration
        self._network = network
        self._outgoing = Outgoing(calibration)
        self._outlet = None

    def open(self) -> None:
        """Announce the stream."""
        pylsl = need("lsl", "pylsl", "pylsl")
        self.close()
        if not self._network and "LSLAPICFG" not in os.environ:
            pylsl.set_config_content(HERE_ONLY)
        names = self.calibration.names
        info = pylsl.StreamInfo(
            name="rapport",
            type="AU",
            channel_count=len(names),
            nominal_srate=self.calibration.rate_hz,
            channel_format=pylsl.cf_float32,
            source_id=f"rapport-{os.getpid()}-{next(_COUNT)}",
        )
        channels = info.desc().append_child("channels")
        for name in names:
            channels.append_child("channel").append_child_value("label", name)
        self._outlet = pylsl.StreamOutlet(info, max_buffered=1)
        self._outgoing.begin()

    def send(self, command: Command, now_s: float) -> Command:
        """One sample, rounded to 32-bit floats."""
        if (last := self._outgoing.held_back(now_s)) is not None:
            return last
        values = self._outgoing.values(command).astype(np.float32).astype(float)
        assert self._outlet is not None
        self._outlet.push_sample(values.tolist())
        return self._outgoing.went(command, values)

    def feedback(self, now_s: float) -> Feedback | None:
        """A recorder has no sensors."""

    def release(self) -> None:
        """Nothing to let go."""

    def close(self) -> None:
        """Withdraw the stream."""
        self._outgoing.end()
        self._outlet = None


def make(calibration: Calibration, address: str) -> LslRobot:
    """Entry point of `deploy.robots.load`; the address is `network` or nothing."""
    if address not in ("", "network"):
        raise ValueError(f"robot lsl takes no address but `network`, got {address!r}")
    return LslRobot(calibration, network=address == "network")
