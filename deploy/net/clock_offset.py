"""What time it is over there: the offset of another machine's monotonic clock, from round trips.

Every exchange bounds the offset from both sides: the question was received after it was asked, the answer was heard
after it was given. The narrowest bounds of the last seconds are believed, their middle is the estimate; so the fastest
question and the fastest answer count, even when they were not of the same round trip. Clocks drift: over a window of
15 s, 100 ppm are 1.5 ms, less than networks leave open. Times in seconds.
Source: after the clock filter of NTP (Mills, RFC 5905, section 10) and Marzullo's intersection of intervals.
"""

from collections import deque
from dataclasses import dataclass

WINDOW_S = 15.0
MOST_SAMPLES = 512


@dataclass(frozen=True)
class RoundTrip:
    """One question and its answer: `asked`, `heard` on the own clock, `received`, `answered` on the other one."""

    asked_s: float
    received_s: float
    answered_s: float
    heard_s: float

    @property
    def delay_s(self) -> float:
        """Time on the way, both directions together."""
        return (self.heard_s - self.asked_s) - (self.answered_s - self.received_s)

    @property
    def most_s(self) -> float:
        """The other clock minus the own one is no more than that."""
        return self.received_s - self.asked_s

    @property
    def least_s(self) -> float:
        """The other clock minus the own one is no less than that."""
        return self.answered_s - self.heard_s


class ClockOffset:
    """The other clock as far as it is known."""

    def __init__(self) -> None:
        self._trips: deque[RoundTrip] = deque(maxlen=MOST_SAMPLES)
        self._offset_s = 0.0
        self.uncertainty_s = float("inf")
        """Half the distance of the bounds; a drifting clock may bring it below zero."""
        self.round_trip_s: float | None = None
        """Of the newest exchange; None before the first."""

    @property
    def known(self) -> bool:
        """Whether there has been an exchange."""
        return bool(self._trips)

    def add(self, trip: RoundTrip) -> bool:
        """Take an exchange; False for one that cannot have been (an answer before its question)."""
        if not (trip.asked_s <= trip.heard_s and trip.received_s <= trip.answered_s and trip.delay_s >= 0):
            return False
        self._trips.append(trip)
        while self._trips[0].heard_s < trip.heard_s - WINDOW_S:
            self._trips.popleft()
        most_s, least_s = min(t.most_s for t in self._trips), max(t.least_s for t in self._trips)
        self._offset_s, self.uncertainty_s = (most_s + least_s) / 2, (most_s - least_s) / 2
        self.round_trip_s = trip.delay_s
        return True

    def there_s(self, here_s: float) -> float:
        """A moment of the own clock on the other one."""
        return here_s + self._offset_s
