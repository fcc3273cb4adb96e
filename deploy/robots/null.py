"""No robot: accepts every command and has no sensors."""

from deploy.calibration import Calibration
from deploy.plan import Command


class NullRobot:
    """Takes commands and does nothing."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration

    def open(self) -> None:
        """Nothing to connect."""

    def send(self, command: Command, now_s: float) -> Command:
        """Accept the command."""
        return command

    def feedback(self, now_s: float) -> None:
        """No sensors."""

    def release(self) -> None:
        """Nothing to let go."""

    def close(self) -> None:
        """Nothing to release."""


def make(calibration: Calibration, address: str) -> NullRobot:
    """Entry point of `deploy.robots.load`."""
    if address:
        raise ValueError(f"robot null takes no address, got {address!r}")
    return NullRobot(calibration)
