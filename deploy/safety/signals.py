"""The end of a process by signal: the first one ends it in order, further ones do not cut the way home short.

SIGINT (Ctrl-C), SIGTERM (service managers) and SIGHUP (the terminal or the ssh connection has gone) are alike; only
SIGKILL cannot be answered, and then the robot's own watchdog is what remains.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(KeyboardInterrupt):
    """Raised in the main thread by the first signal where the work cannot be asked to stop."""


class EndSignals:
    """While the context lasts, ending signals are noted. Enter it from the main thread."""

    def __init__(self, *, raising: bool = False) -> None:
        self._raising = raising
        self._before: dict[int, Any] = {}
        self._came = threading.Event()
        self.number: int | None = None
        """The first signal that came."""

    def __enter__(self) -> "EndSignals":
        self._before = {number: signal.signal(number, self._note) for number in ENDING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            return  # on the way home already
        self.number = number
        self._came.set()
        if self._raising:
            raise Ended

    def wait(self, timeout_s: float) -> bool:
        """Whether a signal came within `timeout_s`."""
        return self._came.wait(timeout_s)

    @property
    def name(self) -> str:
        """Name of the signal that came, such as SIGTERM."""
        return signal.Signals(self.number).name if self.number is not None else "none"

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for SIGINT, 143 for SIGTERM; 0 without one."""
        return 128 + self.number if self.number is not None else 0
