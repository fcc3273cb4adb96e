"""How fast the live loop is, stage by stage, and how well it follows servos of different dead times.

    python -m benchmarks.loop --engine deploy/assets/engine --source deploy/assets/clip.mp4

The first part runs in real time; the second on a clock of its own, so that the machine's load does not enter. A human
table first, one JSON line last.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy import engines, report
from deploy.calibration import Calibration
from deploy.loop import Loop
from deploy.robots import sim
from deploy.run import ASSETS
from deploy.sources.file import FileSource
from dyad.clock import FPS, Clock, FakeClock, MonotonicClock
from dyad.config import as_dict, parse, run_main

DEAD_TIMES_S = (0.05, 0.1, 0.15, 0.2)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is played, and for how long."""

    engine: Path = ASSETS / "engine"
    """Engine folder."""
    source: Path = ASSETS / "clip.mp4"
    """Video of a speaker."""
    seconds: float = 60.0
    """At most so much of it."""


def play(config: Config, dead_time_s: float | None, clock: Clock) -> dict[str, Any]:
    """One run on the simulated head; its report."""
    calibration = Calibration.load("sim")
    if dead_time_s is not None:
        calibration = dataclasses.replace(calibration, dead_time_s=dead_time_s)
    engine, robot = engines.load(config.engine), sim.make(calibration)
    source = FileSource(config.source, engine.manifest.spec, max_frames=round(config.seconds * FPS))
    robot.open()
    if dead_time_s is None:
        robot.run_live()
    loop = Loop(engine, robot, clock)
    source.wait_until_ready()
    try:
        loop.run(source)
    finally:
        robot.neutral(clock.now_s())
        source.close()
        robot.close()
    return report.summarise(loop, source.name, as_dict(config))


def main(argv: list[str] | None = None) -> int:
    """Real time first, then the servos."""
    config = parse(Config, argv, prog="python -m benchmarks.loop", description=(__doc__ or "").splitlines()[0])
    live = play(config, None, MonotonicClock())
    report.print_table(live)
    servos = []
    print(f"\n{'dead time ms':>12s} {'motor lag ms':>12s} {'look-ahead ms':>13s}")
    for dead_time_s in DEAD_TIMES_S:
        run = play(config, dead_time_s, FakeClock())
        servos.append({"dead_time_ms": 1000 * dead_time_s} | {k: run[k] for k in ("motor_lag_ms", "compensated_ms")})
        print("{dead_time_ms:12.0f} {motor_lag_ms:12.1f} {compensated_ms:13.1f}".format(**servos[-1]))
    print(json.dumps(live | {"servos": servos}))
    return 0


if __name__ == "__main__":
    run_main(main)
