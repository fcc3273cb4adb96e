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

import cv2
import numpy as np

from benchmarks.repeating import Repeating, settings
from deploy import engines, robots
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.recording import Recorder
from deploy.run import ASSETS
from deploy.safety.black_box import BlackBox
from deploy.sources import Packet
from dyad.clock import FPS, FakeClock
from dyad.config import as_dict, parse, run_main
from dyad.provenance import run_card, write_json

FLAT_MB = 5.0
LEAST_SPEED = 4.0
MINUTES_COMPARED = 5


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is played, and for how long."""

    engine: Path = ASSETS / "engine"
    """Engine folder."""
    source: Path = ASSETS / "clip.mp4"
    """Video of a speaker, played again and again."""
    minutes: int = 30
    """Of the stream; two at least, for the last is compared with the second."""
    out: Path = Path("benchmarks/results/soak.json")
    """Results file."""


@dataclass(frozen=True)
class Minute:
    """One minute of the stream; a tick is everything between two reads of the source, the controller included."""

    memory_mb: float
    tick_p50_ms: float
    tick_p99_ms: float
    busy_p50_ms: float
    """Of processor time in the loop's thread, which neighbours on the machine do not lengthen."""
    busy_p99_ms: float
    yardstick_ms: float
    """What a fixed piece of work took meanwhile: a machine that clocks down or is shared makes everything slower."""
    took_s: float


class Yardstick:
    """A fixed piece of work, of the loop's kind: products of small matrices and a filtered picture."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._a, self._picture = rng.standard_normal((96, 96), np.float32), rng.integers(0, 255, (240, 320), np.uint8)

    def measure_ms(self) -> float:
        """Processor time that it takes now."""
        began = time.thread_time()
        for _ in range(8):
            self._a @ self._a
            cv2.blur(self._picture, (9, 9))
        return 1000 * (time.thread_time() - began)


class Watched(Repeating):
    """The repeated clip, with a stop-watch on every tick and a look at the process once a minute."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.minutes: list[Minute] = []
        self._ticks: list[tuple[float, float]] = []
        self._handed: tuple[float, float] | None = None
        self._yardstick, self._yards_ms = Yardstick(), list[float]()
        self._began = time.perf_counter()

    def read(self, frame: int) -> Packet | None:
        """As ever; the minute's figures when one has passed."""
        if self._handed is not None:
            self._ticks.append((time.perf_counter() - self._handed[0], time.thread_time() - self._handed[1]))
        if frame % FPS == 0:
            self._yards_ms.append(self._yardstick.measure_ms())
        if frame and frame % (60 * FPS) == 0:
            self.minutes.append(self._look())
        packet = super().read(frame)
        self._handed = (time.perf_counter(), time.thread_time())
        return packet

    def _look(self) -> Minute:
        gc.collect()
        took_s, ticks_ms = time.perf_counter() - self._began, 1000 * np.array(self._ticks)
        (p50, busy50), (p99, busy99) = (np.percentile(ticks_ms, p, axis=0).round(3).tolist() for p in (50, 99))
        yard_ms = round(float(np.median(self._yards_ms)), 4)
        self._ticks, self._yards_ms, self._began = [], [], time.perf_counter()
        return Minute(memory_mb(), p50, p99, busy50, busy99, yard_ms, round(took_s, 2))


def memory_mb() -> float:
    """Resident memory of this process."""
    import psutil

    return round(psutil.Process().memory_info().rss / 2**20, 2)


def soak(config: Config) -> dict[str, Any]:
    """The run; what it amounts to."""
    clock = FakeClock()
    engine, robot = engines.load(config.engine), robots.load("sim")
    body, recorder = robot.calibration, Recorder(3600)
    box = BlackBox(Path("out/blackbox"), clock, robot=body.robot, channels=body.names, rate_hz=body.rate_hz)
    link = LocalLink(robot, clock, watch=recorder.add, box=box)
    frames = config.minutes * 60 * FPS + 1
    source = Watched(config.source, engine.manifest.spec, frames)
    loop = Loop(engine, link, clock)
    link.open(clock.now_s())
    began = time.perf_counter()
    try:
        loop.run(source)
    finally:
        link.close(home=False)
        source.close()
    took_s = time.perf_counter() - began
    found = {
        "minutes": [as_dict(m) for m in source.minutes],
        "ticks": loop.trace.played,
        "missed_ticks": loop.trace.missed_ticks,
        "times_real_time": round(config.minutes * 60 / took_s, 2),
        **change(source.minutes),
        "run": run_card(command="benchmarks.soak", config=settings(config)),
    }
    return found | {"verdicts": verdicts(found)}


def change(minutes: list[Minute]) -> dict[str, float]:
    """What the minutes after the first two make of them.

    A neighbour on the machine makes a single minute a fifth slower than the next; the median of five tells what lasts.
    """
    first, second, last = minutes[0], minutes[1], minutes[-1]
    machine = last.yardstick_ms / second.yardstick_ms
    each = max(1, min(MINUTES_COMPARED, (len(minutes) - 1) // 2))
    early, late = minutes[1 : 1 + each], minutes[-each:]

    def grown(field: str) -> float:
        now, then = (float(np.median([getattr(m, field) for m in some])) for some in (late, early))
        return now / then

    return {
        "busy_p99_late_of_early": round(grown("busy_p99_ms") / grown("yardstick_ms"), 3),
        "busy_p50_late_of_early": round(grown("busy_p50_ms") / grown("yardstick_ms"), 3),
        "yardstick_late_of_early": round(grown("yardstick_ms"), 3),
        "memory_change_mb": round(max((m.memory_mb - first.memory_mb for m in minutes[1:]), key=abs), 2),
        "p99_last_of_second": round(last.tick_p99_ms / second.tick_p99_ms, 3),
        "yardstick_last_of_second": round(machine, 3),
        "busy_p99_last_of_second": round(last.busy_p99_ms / second.busy_p99_ms / machine, 3),
        "busy_p50_last_of_second": round(last.busy_p50_ms / second.busy_p50_ms / machine, 3),
    }


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """What is promised of a long run."""
    return {
        "memory within 5 MB of the first minute's": abs(found["memory_change_mb"]) <= FLAT_MB,
        "p99 of the last five minutes' ticks within a tenth of minutes 2 to 6, in processor time by a yardstick": (
            abs(found["busy_p99_late_of_early"] - 1) <= 0.1
        ),
        "four times real time": found["times_real_time"] >= LEAST_SPEED,
    }


def main(argv: list[str] | None = None) -> int:
    """Soak, print, write."""
    config = parse(Config, argv, prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    found = soak(config)
    titles = ("minute", "memory MB", "p50 ms", "p99 ms", "busy p50", "busy p99", "yard ms", "took s")
    print(" ".join(f"{title:>9s}" for title in titles))
    for i, minute in enumerate(found["minutes"], 1):
        print(" ".join([f"{i:9d}", *(f"{value:9.2f}" for value in minute.values())]))
    print(f"memory after the first minute: {found['memory_change_mb']:+.1f} MB; {found['times_real_time']} × real time")
    for promise, kept in found["verdicts"].items():
        print(f"{'kept  ' if kept else 'BROKEN'} {promise}")
    write_json(config.out, found)
    print(json.dumps(found))
    return 0 if all(found["verdicts"].values()) else 1


if __name__ == "__main__":
    run_main(main)
