"""Robots, one file per wire, found by name; how each moves is its calibration in configs/robots.

A robot takes commands for its channels and reports what it really did. The controller (deploy.motion.controller) keeps
the limits, the watchdog and the way home; a robot never moves on its own. `--robot NAME` or `--robot NAME:ADDRESS`,
where the address is the wire's own, such as `furhat:192.168.1.20:9000` or `dynamixel:/dev/ttyUSB0`.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deploy.calibration import FOLDER, Calibration
from deploy.plan import Command
from dyad.clock import Clock


class RobotLost(ConnectionError):  # noqa: N818 - an event that is handled, not a mistake
    """The wire broke while the robot was in use; the controller opens it again with growing pauses."""


class NotReleased(ConnectionError):  # noqa: N818 - the same
    """The robot was asked to let go, and what it holds may still be on; the words say what, and what to do."""


@dataclass(frozen=True)
class Feedback:
    """What the robot's own sensors say, on the controller's clock."""

    time_s: float
    """When the sensors were read."""
    shares: NDArray[np.float64]
    """[C] sensed positions as shares of each channel's travel."""
    joints: NDArray[np.float64]
    """[C] the same in the device's own unit."""


class Robot(Protocol):
    """One robot face. Called from one thread at a time."""

    calibration: Calibration

    def open(self) -> None:
        """Connect, move nothing; ValueError with a remedy when that fails. May be called again after RobotLost."""
        ...

    def send(self, command: Command, now_s: float) -> Command:
        """Take a command without waiting for the motion; returns what was really sent (throttled, rounded).

        Raises RobotLost when the wire is broken.
        """
        ...

    def feedback(self, now_s: float) -> Feedback | None:
        """What the sensors say now; None where a robot has none. Raises RobotLost."""
        ...

    def release(self) -> None:
        """Let go after the way home: torque off, the robot's own autopilot back on.

        Returns only when nothing of ours holds any more, as far as can be known; raises NotReleased where torque may
        still be on, however often it is asked. A lost wire with nothing behind it to switch off is no reason to raise.
        """
        ...

    def close(self) -> None:
        """Give the wire back; safe to call twice, and without `open`."""
        ...


@runtime_checkable
class Simulated(Protocol):
    """A robot that is computed here, and so wants to know whose time it lives in; whoever owns the clock tells it."""

    def live_by(self, clock: Clock) -> None:
        """Before `open`: by the machine's clock its motors move between calls, too, by any other as far as is asked."""
        ...


def available() -> list[str]:
    """Names of the robots in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str, calibration: Path | None = None) -> Robot:
    """A robot by its file's name, with its calibration; an unknown name lists what is there.

    `name` may carry an address behind a colon (`osc:127.0.0.1:39539`, `furhat://192.168.1.20` is taken too);
    `calibration` replaces configs/robots/<name>.yaml.
    """
    kind, _, address = name.partition(":")
    if kind not in available():
        raise ValueError(f"unknown robot {kind!r}; available: {', '.join(available())}")
    path = calibration or FOLDER / f"{kind}.yaml"
    settings = Calibration.load(path.stem, path.parent)
    if settings.robot != kind:
        raise ValueError(f"{path}: is for robot {settings.robot!r}, not {kind!r}; give the calibration of this robot")
    return importlib.import_module(f"deploy.robots.{kind}").make(settings, address.removeprefix("//"))
