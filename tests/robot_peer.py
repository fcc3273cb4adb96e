"""What the robots' peers share: a transport on this machine, what came over it, and waiting for that."""

import threading
from collections.abc import Callable
from pathlib import Path

from deploy import robots
from deploy.calibration import FOLDER, Calibration
from deploy.robots import Robot

PATIENCE_S = 20.0
Values = dict[str, float]


class Peer:
    """The part that peers share: what came, and waiting for it."""

    name = ""
    arrives = True
    """Whether a command can be seen at the other end."""
    notices_loss = False
    """Whether the transport lets the robot know that its peer is gone."""
    refuses_absence = False
    """Whether opening fails when nobody is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.came: list[Values] = []
        self.complaints: list[str] = []
        self.change = threading.Condition()
        self.calibration = Calibration.load(self.name, FOLDER)
        self.start()

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def drop(self) -> None:
        """Lose the robot, as a pulled plug would; it may come again."""

    @property
    def address(self) -> str:
        return ""

    def robot(self) -> Robot:
        return robots.load(f"{self.name}:{self.address}")

    def ready(self, robot: Robot) -> None:
        """Wait until what is sent will arrive."""

    def take(self, values: Values) -> None:
        with self.change:
            self.came.append(values)
            self.change.notify_all()

    def complain(self, why: str) -> None:
        with self.change:
            self.complaints.append(why)

    def wait(self, happened: Callable[[], bool]) -> None:
        with self.change:
            assert self.change.wait_for(happened, PATIENCE_S), f"{self.name}: it never came; {self.complaints}"

    def wait_for(self, values: Values) -> None:
        """Until these values are the newest that came."""
        close = lambda: bool(self.came) and all(abs(self.came[-1][n] - v) < 1e-6 for n, v in values.items())  # noqa: E731
        self.wait(close)

    def released(self) -> bool:
        """Whether `release` did what the wire promises."""
        return True
