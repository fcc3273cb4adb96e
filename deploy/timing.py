"""Where a tick's time goes: a stop-watch per stage, percentiles at the end."""

import time
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

STAGES = ("capture", "face", "features", "student", "motion", "send", "total")


class StageTimes:
    """Durations of every stage, milliseconds."""

    def __init__(self) -> None:
        self._ms: dict[str, list[float]] = {stage: [] for stage in STAGES}

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Time a block."""
        started = time.perf_counter()
        yield
        self.add(name, 1000 * (time.perf_counter() - started))

    def add(self, name: str, duration_ms: float) -> None:
        """Record one duration."""
        self._ms[name].append(duration_ms)

    def summary(self) -> dict[str, dict[str, float]]:
        """Stage → p50_ms, p95_ms, p99_ms."""
        return {
            name: {f"p{p}_ms": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)}
            for name, values in self._ms.items()
            if values
        }
