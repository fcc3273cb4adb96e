"""No robot: accepts every plan and has no sensors."""

from deploy.calibration import Calibration
from deploy.plan import AUPlan
from deploy.robots import Feedback


class NullRobot:
    """Takes plans and does nothing."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration

    def open(self) -> None:
        """Nothing to connect."""

    def send(self, plan: AUPlan, now_s: float) -> AUPlan:
        """Accept the plan."""
        return plan

    def feedback(self, now_s: float) -> Feedback | None:
        """No sensors."""
        return None

    def neutral(self, now_s: float) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing to release."""


def make(calibration: Calibration) -> NullRobot:
    """Entry point of `deploy.robots.load`."""
    return NullRobot(calibration)
