"""How fast the live loop is, stage by stage, with neighbours busy and idle.

    python -m benchmarks.loop --source deploy/assets/clip.mp4 --seconds 60

In real time, on two cores and the simulated head, the clip played again and again until the time is over. A human
table first, one JSON line last; the whole goes to benchmarks/results/loop.json.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repeating import Repeating, settings
from deploy import engines, report, robots
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.recording import Recorder
from deploy.run import ASSETS
from deploy.timing import StageTimes
from dyad.clock import FPS, MonotonicClock
from dyad.config import parse, run_main
from dyad.provenance import write_json

TICK_MS = 1000 / FPS
CORES = 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is played, and for how long."""

    engine: Path = ASSETS / "engine"
    """Engine folder."""
    source: Path = ASSETS / "clip.mp4"
    """Video of a speaker."""
    seconds: float = 60.0
    """So much of it, from the start again when it ends."""
    out: Path = Path("benchmarks/results/loop.json")
    """Results file."""


def play(config: Config) -> dict[str, Any]:
    """One run in real time; its report."""
    clock, times = MonotonicClock(), StageTimes()
    engine, robot = engines.load(config.engine), robots.load("sim")
    frames = round(config.seconds * FPS)
    recorder = Recorder(round(config.seconds * robot.calibration.rate_hz) + 600)
    link = LocalLink(robot, clock, watch=recorder.add, times=times.add)
    source = Repeating(config.source, engine.manifest.spec, frames)
    loop = Loop(engine, link, clock, times=times, keep_frames=frames)
    try:
        link.open(clock.now_s())
        source.wait_until_ready()
        loop.run(source)
        status = link.status()
    finally:
        link.close(home=True)
        source.close()
    return report.summarise(
        loop, source, status, recorder, robot.calibration, ended="the source ended", config=settings(config)
    ) | {"commands_skipped": link.heart.skipped_ticks, "command_every_ms": _beat(recorder)}


def _beat(recorder: Recorder) -> dict[str, float]:
    """How evenly commands came, in milliseconds."""
    gaps_ms = 1000 * np.diff(recorder.sent()[0])
    return {f"p{p}_ms": round(float(np.percentile(gaps_ms, p)), 2) for p in (1, 50, 99)}


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """What is promised of the loop on two cores."""
    stages = found["stages"]
    return {
        "p99 of a tick below 33 ms": stages["total"]["p99_ms"] < TICK_MS,
        "no tick missed in 99 of 100": found["missed_ticks"] <= 0.01 * found["ticks"],
        "the student's step at most a third of a tick": stages["student"]["p99_ms"] <= TICK_MS / 3,
    }


def main(argv: list[str] | None = None) -> int:
    """Play, print, write."""
    config = parse(Config, argv, prog="python -m benchmarks.loop", description=(__doc__ or "").splitlines()[0])
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) > CORES:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    found = play(config)
    report.print_table(found)
    print("commands every {p50_ms} ms (p1 {p1_ms}, p99 {p99_ms})".format(**found["command_every_ms"]))
    found["verdicts"] = verdicts(found)
    for promise, kept in found["verdicts"].items():
        print(f"{'kept  ' if kept else 'BROKEN'} {promise}")
    write_json(config.out, found)
    print(json.dumps(found))
    return 0 if all(found["verdicts"].values()) else 1


if __name__ == "__main__":
    run_main(main)
