"""Half an hour of the loop, as fast as it will go on a clock of its own: memory and step times must stay flat.

    python -m benchmarks.soak --minutes 30

The clock is a fake one, so that the machine's load cannot make the loop skip; everything else is the real thing, the
robot's physics included. Memory is the process's own, looked at once per minute of the stream. A table first, one JSON
line last; the whole goes to benchmarks/results/soak.json.
"""

import gc
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.repeating import Repeating, settings
from deploy import engines, robots
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.recording import Recorder
from deploy.run import ASSETS
from deploy.safety.black_box import BlackBox
from deploy.sources import Packet
from deploy.timing import Counts, StageTimes, percentiles
from dyad.clock import FPS, FakeClock
from dyad.config import as_dict, parse, run_main
from dyad.provenance import run_card, write_json

FLAT_MB = 5.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is played, and for how long."""

    engine: Path = ASSETS / "engine"
    """Engine folder."""
    source: Path = ASSETS / "clip.mp4"
    """Video of a speaker, played again and again."""
    minutes: int = 30
    """Of the stream."""
    out: Path = Path("benchmarks/results/soak.json")
    """Results file."""


@dataclass(frozen=True)
class Minute:
    """One minute of the stream."""

    memory_mb: float
    tick_p50_ms: float
    tick_p99_ms: float
    took_s: float


class Watched(Repeating):
    """The repeated clip, with a look at the process once a minute."""

    def __init__(self, *given: Any, times: StageTimes) -> None:
        super().__init__(*given)
        self.minutes: list[Minute] = []
        self._times, self._before, self._began = times, times.counts(), time.perf_counter()

    def read(self, frame: int) -> Packet | None:
        """As ever; the minute's figures when one has passed."""
        if frame and frame % (60 * FPS) == 0:
            self.minutes.append(self._look())
        return super().read(frame)

    def _look(self) -> Minute:
        gc.collect()
        counts, took_s = self._times.counts(), time.perf_counter() - self._began
        passed: Counts = {stage: bins - self._before[stage] for stage, bins in counts.items()}
        spent = sum_of_stages(percentiles(passed))
        self._before, self._began = counts, time.perf_counter()
        return Minute(memory_mb(), *spent, round(took_s, 2))


def sum_of_stages(found: dict[str, dict[str, float]]) -> tuple[float, float]:
    """p50 and p99 of the stages that compute, added up: on a fake clock a tick as a whole takes no time."""
    computing = [row for stage, row in found.items() if stage not in ("capture", "total")]
    p50, p99 = (sum(row[p] for row in computing) for p in ("p50_ms", "p99_ms"))
    return round(p50, 3), round(p99, 3)


def memory_mb() -> float:
    """Resident memory of this process."""
    import psutil

    return round(psutil.Process().memory_info().rss / 2**20, 2)


def soak(config: Config) -> dict[str, Any]:
    """The run; what it amounts to."""
    clock, times = FakeClock(), StageTimes()
    engine, robot = engines.load(config.engine), robots.load("sim")
    body, recorder = robot.calibration, Recorder(3600)
    box = BlackBox(Path("out/blackbox"), clock, robot=body.robot, channels=body.names, rate_hz=body.rate_hz)
    link = LocalLink(robot, clock, watch=recorder.add, times=times.add, box=box)
    frames = config.minutes * 60 * FPS + 1
    source = Watched(config.source, engine.manifest.spec, frames, times=times)
    loop = Loop(engine, link, clock, times=times)
    link.open(clock.now_s())
    began = time.perf_counter()
    try:
        loop.run(source)
    finally:
        link.close(home=False)
        source.close()
    took_s = time.perf_counter() - began
    first, rest = source.minutes[0], source.minutes[1:]
    return {
        "minutes": [as_dict(m) for m in source.minutes],
        "ticks": loop.trace.played,
        "missed_ticks": loop.trace.missed_ticks,
        "times_real_time": round(config.minutes * 60 / took_s, 2),
        "memory_change_mb": round(max((m.memory_mb - first.memory_mb for m in rest), key=abs, default=0.0), 2),
        "p99_last_of_second": round(rest[-1].tick_p99_ms / rest[0].tick_p99_ms, 3) if rest else None,
        "p50_last_of_second": round(rest[-1].tick_p50_ms / rest[0].tick_p50_ms, 3) if rest else None,
        "run": run_card(command="benchmarks.soak", config=settings(config)),
    }


def main(argv: list[str] | None = None) -> int:
    """Soak, print, write."""
    config = parse(Config, argv, prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    found = soak(config)
    print(f"{'minute':>6s} {'memory MB':>10s} {'p50 ms':>8s} {'p99 ms':>8s} {'took s':>8s}")
    for i, row in enumerate(found["minutes"], 1):
        print("{0:6d} {memory_mb:10.1f} {tick_p50_ms:8.2f} {tick_p99_ms:8.2f} {took_s:8.1f}".format(i, **row))
    flat = abs(found["memory_change_mb"]) <= FLAT_MB
    print(f"memory after the first minute: {found['memory_change_mb']:+.1f} MB ({'flat' if flat else 'NOT FLAT'})")
    print(f"p99 of the last minute: {found['p99_last_of_second']} of the second's, p50 {found['p50_last_of_second']}")
    print(f"{found['times_real_time']} times real time")
    write_json(config.out, found)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    run_main(main)
