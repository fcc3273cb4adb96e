"""What is wrong with what others send, said seldom: a flood of nonsense must not become a flood of log lines."""

import logging
import threading
from collections.abc import Callable

EVERY_S = 5.0
"""One line per kind of complaint in so long; the others are counted."""

_LOG = logging.getLogger("deploy")


class Bucket:
    """So many a second, and a few more at once."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left = burst
        self._last_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Take one; False when it would be over the rate."""
        if not self.has_room(now_s):
            return False
        self._left -= 1
        return True

    def has_room(self, now_s: float) -> bool:
        """Whether one more is within the rate."""
        if self._last_s is not None:
            self._left = min(self._burst, self._left + self._per_s * max(now_s - self._last_s, 0.0))
        self._last_s = now_s
        return self._left >= 1


class Complaints:
    """Counts all, says one in a while; `also` hears what is said (the black box does)."""

    def __init__(self, also: Callable[[str, str], None] | None = None) -> None:
        self._also = also
        self._last_s: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}
        self._lock = threading.Lock()
        self.counts: dict[str, int] = {}

    def say(self, kind: str, text: str, now_s: float) -> None:
        """Complain about `kind` (one of a few words of our own) in a sentence."""
        with self._lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            last_s = self._last_s.get(kind)
            if last_s is not None and now_s - last_s < EVERY_S:
                self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
                return
            more = self._unsaid.pop(kind, 0)
            self._last_s[kind] = now_s
        line = text + (f" (and {more} more like it)" if more else "")
        _LOG.warning("%s", line)
        if self._also is not None:
            self._also(kind, line)
