"""The end of a process by signal: the first one ends it in order, further ones do not cut the way home short.

SIGINT (Ctrl-C), SIGTERM (service managers), SIGHUP (the terminal or the ssh connection has gone), SIGQUIT and
SIGTSTP (Ctrl-Z, which would suspend heart and watchdog with the face where it is) are alike; only SIGKILL and SIGSTOP
cannot be answered, and then the robot's own watchdog is what remains. A terminal in whose background the process is may
not suspend it either: what it does to the terminal there goes through, or fails. After a terminal has gone nothing that
is printed may fail, and take the report with it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
SUSPENDING = (signal.SIGTTOU, signal.SIGTTIN)
"""Ignored: they would stop the process at the restoring of its terminal, or at a key."""
OUTPUTS = (1, 2)


class Ended(KeyboardInterrupt):
    """Raised in the main thread by the first signal, only in `EndSignals.interruptible`."""


class EndSignals:
    """While the context lasts, ending signals are noted. Enter it from the main thread.

    Opening a robot and bringing it home are never interrupted; work that cannot be asked to stop is done in
    `interruptible`.
    """

    def __init__(self) -> None:
        self._raising = False
        self._before: dict[int, Any] = {}
        self._terminals: tuple[int, ...] = ()
        self._came = threading.Event()
        self.number: int | None = None
        """The first signal that came."""

    def __enter__(self) -> "EndSignals":
        self._terminals = tuple(output for output in OUTPUTS if os.isatty(output))
        self._before = {number: signal.signal(number, self._note) for number in ENDING}
        self._before |= {number: signal.signal(number, signal.SIG_IGN) for number in SUSPENDING}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _close_outputs(tuple(output for output in self._terminals if not os.isatty(output)))
        if self.number is not None:
            return  # on the way home already
        self.number = number
        self._came.set()
        if self._raising:
            raise Ended

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None]:
        """In here the first signal raises `Ended`, at once where it has come already."""
        try:
            self._raising = True
            if self.number is not None:
                raise Ended
            yield
        finally:
            self._raising = False

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


def _close_outputs(outputs: tuple[int, ...]) -> None:
    """Have what is written to these descriptors go nowhere."""
    if outputs:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in outputs:
            os.dup2(nowhere, output)
        os.close(nowhere)
