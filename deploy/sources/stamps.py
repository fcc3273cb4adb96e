"""From a stream's own time stamps to the loop's monotonic clock, without the jitter of arrival.

A packet can arrive late but never early: the smallest of (arrival - own stamp) is the best known offset between the two
clocks, and every other difference is delay on the way. The minimum is taken over the last seconds and let rise slowly,
so that a sender's clock which runs slower or faster than ours is followed (drift); a leap of the sender's clock starts
the mapping afresh and is counted.
"""

from collections import deque
from collections.abc import Callable

WINDOW_S = 10.0
"""How far back the smallest difference is looked for."""
RISE_PER_S = 1e-3
"""How fast the offset may rise: ten times the drift of a poor crystal."""
JUMP_S = 0.5
"""An own stamp that far ahead of what time allows has leapt; that far behind, it may only be late."""
TOGETHER_S = 0.4
"""Two tracks of one stream whose offsets differ by less go by one clock, and the rest is delay of the slower track."""
LATE_S = 1.0
"""What is late for longer than this is not late: the sender's clock went back."""


class TimeMap:
    """One stream's offset to the loop's clock."""

    def __init__(self, latency_s: float = 0.0, on_jump: Callable[[], None] = lambda: None) -> None:
        """`latency_s` is what even the fastest packet takes from capture to arrival; it cannot be seen from here."""
        self._latency_s, self._on_jump = latency_s, on_jump
        self._least: deque[tuple[float, float]] = deque()  # (arrival, difference), both rising: a sliding minimum
        self._offset_s: float | None = None
        self._last_s = 0.0
        self._late_since_s: float | None = None

    @property
    def offset_s(self) -> float | None:
        """Best known difference between our clock and the stream's; None before the first packet."""
        return self._offset_s

    def captured_s(self, own_s: float, arrived_s: float) -> float:
        """When what is stamped `own_s` and arrived at `arrived_s` was captured, on the loop's clock."""
        difference_s = arrived_s - own_s
        if self._has_leapt(difference_s, arrived_s):
            self._restart()
            self._on_jump()
        self._note(difference_s, arrived_s)
        least_s = self._least[0][1]
        if self._offset_s is None:
            self._offset_s = least_s
        risen_s = self._offset_s + RISE_PER_S * max(arrived_s - self._last_s, 0.0)
        self._offset_s = min(least_s, risen_s)
        self._last_s = arrived_s
        return own_s + self._offset_s - self._latency_s

    def _has_leapt(self, difference_s: float, arrived_s: float) -> bool:
        if self._offset_s is None:
            return False
        if difference_s <= self._offset_s + JUMP_S:
            self._late_since_s = None
            return difference_s < self._offset_s - JUMP_S
        if self._late_since_s is None:
            self._late_since_s = arrived_s
        return arrived_s - self._late_since_s > LATE_S

    def _note(self, difference_s: float, arrived_s: float) -> None:
        while self._least and self._least[-1][1] >= difference_s:
            self._least.pop()
        self._least.append((arrived_s, difference_s))
        while self._least[0][0] < arrived_s - WINDOW_S:
            self._least.popleft()

    def _restart(self) -> None:
        self._least.clear()
        self._offset_s = self._late_since_s = None


def captured_in_step(track: TimeMap, other: TimeMap, own_s: float, arrived_s: float) -> float:
    """`track.captured_s`, by the offset of the `other` track of the same stream where that is the better known one.

    So lips and voice stay together though sound is packed and delayed otherwise than pictures. Tracks whose clocks are
    further apart than delay explains (cameras that send no common time) are each mapped by themselves.
    """
    captured_s = track.captured_s(own_s, arrived_s)
    mine_s, theirs_s = track.offset_s, other.offset_s
    if mine_s is None or theirs_s is None or not 0 < mine_s - theirs_s < TOGETHER_S:
        return captured_s
    return captured_s - (mine_s - theirs_s)
