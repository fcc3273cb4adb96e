"""Measure how late and how fast a robot's motors are, through its own sensors, and write its calibration.

    python -m deploy.calibrate --robot dynamixel:/dev/ttyUSB0 --out my_head.yaml

Moves one channel after the other, jerk-limited as in use, out and back within the ends that its calibration allows;
some five seconds and one printed line each. What is measured is the whole answer from command to sensor: the bus, the
servo's own filter, the inertia that it moves. Measuring again with the file that this wrote gives the same figures.
Ctrl-C, SIGTERM or the end of the terminal end it at any moment: the face goes home, then is let go, and nothing is
written. Asking a second time does not cut the way home short.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dyad.config import parse, run_main

if TYPE_CHECKING:
    from deploy.rig import Measured


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to move, how far, and where the result goes."""

    robot: str
    """Robot by name and address; it must have sensors of its own."""
    calibration: Path | None = None
    """Its calibration so far, when that is not configs/robots/NAME.yaml; no motion goes beyond its ends."""
    out: Path | None = None
    """Where the new calibration is written; by default out/robots/NAME.yaml, which is never overwritten."""
    share: float = 0.8
    """How much of the travel each channel moves."""
    channels: tuple[str, ...] = ()
    """Channels to move; all when empty."""

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if not 0.1 <= self.share <= 1:
            raise ValueError(f"share must be in [0.1, 1], got {self.share}")


def target(config: Config) -> Path:
    """Where to write; decided, and refused, before anything moves."""
    kind = config.robot.partition(":")[0]
    out = config.out or Path("out/robots") / f"{kind}.yaml"
    if config.out is None and out.exists():
        raise ValueError(f"{out} is there already; say where to write, or to overwrite it, with --out {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def print_row(number: int, one: "Measured") -> None:
    """One channel, as soon as it is measured; the columns' names before the first."""
    if number == 0:
        print(
            f"{'channel':24} {'dead ms':>8} {'rise ms':>8} {'lag ms':>8} {'low %':>7} {'high %':>7} {'explained':>10}"
        )
    answer = one.response
    times = (
        f"{1e3 * answer.dead_time_s:8.0f} {1e3 * answer.rise_s:8.0f} {1e3 * answer.lag_s:8.0f}"
        if answer
        else f"{'did not move':>26}"
    )
    explained = f"{answer.agreement:10.3f}" if answer else f"{'-':>10}"
    ends = (f"{100 * end:7.0f}" if end is not None else f"{'-':>7}" for end in (one.low, one.high))
    print(f"{one.channel:24} {times} {' '.join(ends)} {explained}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Parse, open, move, measure, go home, write."""
    config = parse(Config, argv, prog="python -m deploy.calibrate", description=(__doc__ or "").splitlines()[0])
    from deploy import rig, robots
    from deploy.safety.signals import Ended, EndSignals
    from dyad.clock import MonotonicClock

    robot = robots.load(config.robot, config.calibration)
    chosen = [robot.calibration.position(name) for name in config.channels]
    chosen = chosen or list(range(len(robot.calibration.names)))
    out = target(config)
    measured = []
    with EndSignals() as signals, contextlib.suppress(Ended):  # at home by then, and let go
        measured = rig.measure(robot, MonotonicClock(), chosen, config.share, signals.interruptible(), tell=print_row)
    if signals.number is not None:
        return signals.exit_status
    found = rig.calibrated(robot.calibration, measured)
    rig.write(found, out, measured, config.robot.partition("?")[0])
    print(f"dead time {1e3 * found.dead_time_s:.0f} ms, time constant {1e3 * found.time_constant_s:.0f} ms: {out}")
    return 0


if __name__ == "__main__":
    run_main(main)
