"""The only place where frames, samples and seconds are converted, and the wall clocks.

Media time is an integer frame index at 30 Hz; frame t covers [t/30, (t+1)/30) s. 16000/30 is not an integer:
blocks are 533, 533, 534 samples, and `frame * rate // fps` never drifts, where 533 * frame is 37.5 ms off in a minute.
"""

import time
from typing import Protocol

FPS = 30
"""Frames per second of every sequence inside the product."""
SAMPLE_RATE_HZ = 16000
"""Samples per second of every sound inside the product."""
FRAME_S = 1.0 / FPS
"""Length of a frame in seconds; for displays and limits, never for accumulating time."""


def samples_until(frame: int, rate_hz: int = SAMPLE_RATE_HZ, fps: int = FPS) -> int:
    """Number of samples before the start of `frame` (≥ 0), exact."""
    return frame * rate_hz // fps


def audio_end(frame: int, rate_hz: int = SAMPLE_RATE_HZ, fps: int = FPS) -> int:
    """First sample that a prediction at `frame` may not use: everything before it belongs to frames ≤ `frame`."""
    return samples_until(frame + 1, rate_hz, fps)


def frame_at(time_s: float, fps: int = FPS) -> int:
    """Index of the frame that covers `time_s`; a time within 1 µs of a frame's start belongs to that frame."""
    return int((time_s + 1e-6) * fps // 1)


def frames_in(duration_s: float, fps: int = FPS) -> int:
    """Whole frames in `duration_s`; a remainder within 1 ms of a full frame counts as one."""
    return int((duration_s + 1e-3) * fps // 1)


class Clock(Protocol):
    """Wall time, monotonic, in seconds from an arbitrary zero."""

    def now_s(self) -> float:
        """Seconds since the clock's zero."""
        ...

    def sleep_until(self, time_s: float) -> None:
        """Return at `time_s` or at once when it has passed."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Seconds since the machine's zero."""
        return time.monotonic()

    def sleep_until(self, time_s: float) -> None:
        """Sleep to an absolute deadline, so that waits never add up."""
        remaining_s = time_s - time.monotonic()
        if remaining_s > 0:
            time.sleep(remaining_s)


class FakeClock:
    """A clock for tests: it moves only when told to, or when someone sleeps on it."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        """Seconds since the clock's zero."""
        return self._now_s

    def sleep_until(self, time_s: float) -> None:
        """Jump to `time_s`; never backwards."""
        self._now_s = max(self._now_s, time_s)

    def advance(self, seconds_s: float) -> None:
        """Move on by `seconds_s` ≥ 0."""
        if seconds_s < 0:
            raise ValueError(f"a clock never runs backwards; got {seconds_s} s")
        self._now_s += seconds_s
