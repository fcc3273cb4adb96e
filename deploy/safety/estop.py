"""The emergency stop at the keyboard: any key. Arming again is never a key, for a hand in alarm hits several.

It works where standard input is a terminal, and leaves the terminal as it was, if that is still there. A stop in
software is no substitute for the switch that cuts the power: keep that within reach.
"""

import contextlib
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable
from typing import Any, TextIO


class KeyStop:
    """From `start` to `close` any key on the terminal `keys` calls `stop`; without a terminal it does nothing."""

    def __init__(self, stop: Callable[[str], None], keys: TextIO | None = None) -> None:
        self._stop, self._keys = stop, keys or sys.stdin
        self._settings: list[Any] | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="keys", daemon=True)

    @property
    def listening(self) -> bool:
        """Whether there is a terminal to listen to, with this process in its foreground."""
        return self._settings is not None

    def start(self) -> None:
        """Listen, if there is a terminal."""
        if not self._keys.closed and self._keys.isatty() and _in_foreground(self._keys.fileno()):
            self._settings = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)  # single keys; Ctrl-C stays a signal
            self._thread.start()

    def close(self) -> None:
        """Listen no more; the terminal is as it was. Safe to call twice, and when the terminal has gone."""
        self._ending.set()
        settings, self._settings = self._settings, None
        if settings is not None:
            self._thread.join(timeout=1.0)
            with contextlib.suppress(termios.error):  # it has hung up
                termios.tcsetattr(self._keys, termios.TCSANOW, settings)

    def _listen(self) -> None:
        while not self._ending.is_set():
            ready, _, _ = select.select([self._keys], [], [], 0.1)
            if not ready:
                continue
            try:
                key = os.read(self._keys.fileno(), 64)
            except OSError:  # the terminal has gone; SIGHUP says so too
                return
            if not key:
                return
            self._stop(f"key {key[:1].decode('latin-1')!r}")


def _in_foreground(descriptor: int) -> bool:
    """A process in the background may not touch the terminal's settings."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
