"""Short memories of what was just seen and heard, indexed by time of capture on the loop's clock.

Capture threads write, the loop reads; each ring has one lock and copies nothing but samples. Times in seconds on the
loop's clock; samples at 16 kHz, mono, counted from the clock's zero.
"""

import bisect
import threading

import numpy as np
from numpy.typing import NDArray

from dyad.clock import SAMPLE_RATE_HZ

PICTURES = 16
"""Pictures kept: more than half a second at 30 Hz, a quarter at 60."""
SAME_S = 1e-3
"""Two pictures closer in time than this are one picture sent twice."""
SOUND_S = 2.0
"""Sound kept."""
STEADY_SAMPLES = 16
"""Blocks whose time is off by less (1 ms) follow one another without a seam."""
SNAP_SAMPLES = 64
"""Up to here (4 ms) a seam is drift between two clocks: one sample per block is dropped or repeated. Beyond, it is a
gap or an overlap, and the block goes where its time says."""


class PictureRing:
    """The newest pictures, in order of capture."""

    def __init__(self, capacity: int = PICTURES) -> None:
        self._capacity = capacity
        self._times: list[float] = []
        self._pictures: list[NDArray[np.uint8]] = []
        self._shown_s = float("-inf")
        self._lock = threading.Lock()
        self.received = self.dropped = self.duplicated = 0

    def push(self, picture: NDArray[np.uint8], captured_at_s: float) -> None:
        """Keep a picture; one that is older than what was shown comes too late, one of the same time is a double."""
        with self._lock:
            self.received += 1
            if any(abs(captured_at_s - t) < SAME_S for t in (*self._times, self._shown_s)):
                self.duplicated += 1
                return
            if captured_at_s < self._shown_s:
                self.dropped += 1
                return
            i = bisect.bisect(self._times, captured_at_s)
            self._times.insert(i, captured_at_s)
            self._pictures.insert(i, picture)
            if len(self._times) > self._capacity:
                self._forget(1)

    def take(self, until_s: float) -> tuple[float, NDArray[np.uint8]] | None:
        """The newest picture captured by `until_s` and its time; None when nothing newer than the last one taken is.

        What is older than it is forgotten, unshown.
        """
        with self._lock:
            i = bisect.bisect(self._times, until_s)
            if i == 0:
                return None
            self._forget(i - 1)
            self._shown_s = self._times.pop(0)
            return self._shown_s, self._pictures.pop(0)

    def _forget(self, number: int) -> None:
        del self._times[:number], self._pictures[:number]
        self.dropped += number

    @property
    def newest_s(self) -> float:
        """When the newest picture, shown or not, was captured; minus infinity when there was none."""
        with self._lock:
            return self._times[-1] if self._times else self._shown_s

    def restart(self) -> None:
        """Keep the newest picture alone, and count from here on."""
        with self._lock:
            self._forget(max(len(self._times) - 1, 0))
            self.received = self.dropped = self.duplicated = 0


class SoundRing:
    """The last two seconds of sound; what never came is zero, and known to be missing."""

    def __init__(self, seconds: float = SOUND_S) -> None:
        self._size = round(seconds * SAMPLE_RATE_HZ)
        self._samples = np.zeros(self._size, np.float32)
        self._heard = np.zeros(self._size, bool)
        self._end: int | None = None
        self._lock = threading.Lock()
        self.gaps = 0

    def write(self, block: NDArray[np.float32], captured_at_s: float) -> None:
        """Put a block [S] where its first sample was captured; small errors of the stamp make no seam."""
        with self._lock:
            at = round(captured_at_s * SAMPLE_RATE_HZ)
            if self._end is None:
                self._end = at
            early = self._end - at
            if abs(early) <= SNAP_SAMPLES:
                at = self._end
                if early > STEADY_SAMPLES:
                    block = block[1:]
                elif early < -STEADY_SAMPLES:
                    block = np.append(block, block[-1])
            self._place(block[-self._size :], at + max(len(block) - self._size, 0))

    def _place(self, block: NDArray[np.float32], at: int) -> None:
        assert self._end is not None
        if at > self._end:
            self.gaps += 1
            self._mark(np.arange(max(self._end, at - self._size), at), 0.0, heard=False)
        self._end = max(self._end, at + len(block))
        known = max(self._end - self._size - at, 0)  # what is older than the ring is long is lost
        self._mark(np.arange(at + known, at + len(block)), block[known:], heard=True)

    def _mark(self, where: NDArray[np.int64], samples: NDArray[np.float32] | float, *, heard: bool) -> None:
        self._samples[where % self._size] = samples
        self._heard[where % self._size] = heard

    def window(self, stop: int, length: int) -> tuple[NDArray[np.float32], int]:
        """The `length` samples before sample `stop`, zeros where none came, and how many came."""
        out = np.zeros(length, np.float32)
        with self._lock:
            end = self._end
            if end is None:
                return out, 0
            first, last = max(stop - length, end - self._size), min(stop, end)
            if first >= last:
                return out, 0
            where = np.arange(first, last) % self._size
            heard = self._heard[where]
            offset = first - (stop - length)
            out[offset : offset + len(where)] = np.where(heard, self._samples[where], 0.0)
            return out, int(heard.sum())

    @property
    def end(self) -> int | None:
        """The sample after the last one that came; None before the first."""
        with self._lock:
            return self._end

    def restart(self) -> None:
        """Count from here on."""
        with self._lock:
            self.gaps = 0
