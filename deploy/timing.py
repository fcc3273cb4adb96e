"""Where a tick's time goes: a stop-watch per stage, percentiles at any moment, in memory that never grows.

Durations fall into bins one per cent apart, from a microsecond to a hundred seconds: percentiles are exact to a per
cent, after a minute as after a month.
"""

import math
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

STAGES = ("capture", "face", "features", "student", "motion", "send", "total")
LEAST_MS = 1e-3
STEP = math.log(1.01)
BINS = round(math.log(1e8) / STEP) + 1

Counts = dict[str, NDArray[np.int64]]
"""Stage → number of durations per bin, [BINS]."""


class StageTimes:
    """Durations of every stage, milliseconds; the loop and the controller's thread may both add."""

    def __init__(self) -> None:
        self._counts: Counts = {stage: np.zeros(BINS, np.int64) for stage in STAGES}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time a block."""
        started = time.perf_counter()
        yield
        self.add(name, 1000 * (time.perf_counter() - started))

    def add(self, name: str, duration_ms: float) -> None:
        """Record one duration."""
        place = round(math.log(max(duration_ms, LEAST_MS) / LEAST_MS) / STEP)
        with self._lock:
            self._counts[name][min(place, BINS - 1)] += 1

    def counts(self) -> Counts:
        """A copy of all bins; the difference of two copies holds what lies between them."""
        with self._lock:
            return {stage: bins.copy() for stage, bins in self._counts.items()}

    def summary(self) -> dict[str, dict[str, float]]:
        """Stage → p50_ms, p95_ms, p99_ms, of the stages that were timed."""
        return percentiles(self.counts())


def percentiles(counts: Counts) -> dict[str, dict[str, float]]:
    """Stage → p50_ms, p95_ms, p99_ms of binned durations."""
    return {
        stage: {f"p{p}_ms": round(_percentile(bins, p), 3) for p in (50, 95, 99)}
        for stage, bins in counts.items()
        if bins.any()
    }


def _percentile(bins: NDArray[np.int64], percent: float) -> float:
    """The least duration that `percent` of all do not exceed, in milliseconds."""
    reached = np.cumsum(bins)
    place = int(np.searchsorted(reached, max(percent / 100 * reached[-1], 1)))
    return LEAST_MS * math.exp(place * STEP)
