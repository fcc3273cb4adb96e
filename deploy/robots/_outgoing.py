"""What every wire does to a command before it leaves: pace it, turn shares into the device's unit, remember it.

A wire takes at most `rate_hz` commands per second on average; what comes faster is held back, and the next one that
goes is the newest, never a queue. Shapes: C channels.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration
from deploy.plan import Command
from deploy.robots import RobotLost

JITTER = 0.5
"""How much of a period a command may come early, so that an uneven tick is not halved; none follow closer than that."""


class Pace:
    """Lets through `rate_hz` events per second on average."""

    def __init__(self, rate_hz: float) -> None:
        self._period_s, self._slack_s = 1 / rate_hz, JITTER / rate_hz
        self._next_s = self._last_s = float("-inf")

    def due(self, now_s: float) -> bool:
        """Whether one may go now; counts it as gone."""
        if now_s < max(self._next_s, self._last_s + self._period_s) - self._slack_s:
            return False
        self._next_s = max(self._next_s, now_s - self._slack_s) + self._period_s
        self._last_s = now_s
        return True


class Outgoing:
    """The commands of one robot on their way out; begins anew with every `open`."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._pace: Pace | None = None
        self.last: Command | None = None
        """What went out last, as the device understood it."""

    def begin(self) -> None:
        """The wire is open."""
        self._pace, self.last = Pace(self._calibration.rate_hz), None

    def end(self) -> None:
        """The wire is closed; commands are refused."""
        self._pace = None

    @property
    def is_open(self) -> bool:
        """Between `begin` and `end`."""
        return self._pace is not None

    def held_back(self, now_s: float) -> Command | None:
        """The last command that really went, when it is too early for another; None when one may go."""
        if self._pace is None:
            raise RobotLost(f"robot {self._calibration.robot} is not open")
        return None if self._pace.due(now_s) else self.last

    def values(self, command: Command) -> NDArray[np.float64]:
        """[C] in each channel's own unit, never beyond the calibration's ends."""
        assert np.isfinite(command.shares).all(), "the controller lets no such command through"
        low = np.where(self._calibration.one_way, 0.0, -1.0)
        return self._calibration.device_values(np.clip(command.shares, low, 1))

    def went(self, command: Command, values: NDArray[np.float64]) -> Command:
        """Remember that these values [C] went out for `command`, and say it in shares."""
        self.last = dataclasses.replace(command, shares=self._calibration.shares_of(values))
        return self.last

    def stayed(self, command: Command) -> Command:
        """What the device still shows when the wire had no room for `command`."""
        return self.last or dataclasses.replace(command, shares=np.zeros_like(command.shares))
