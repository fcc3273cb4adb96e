"""What it costs that the simulated head lives in a thread of its own, and whether it still tells its delays.

    chrt -r 10 python -m benchmarks.physics

The live loop on two cores, student and all, plays the same clip in turns: once with the head's physics in a thread, at
500 Hz whoever asks, once as far as the controller's ticks ask for it, in their thread. Then each head is calibrated
through its own sensors, alone and beside a thread that never rests: what dead time they tell where 40 ms are set.
Medians over the rounds. `chrt` where others compute on the machine, too: whoever wants the processor every 2 ms meets
them all. A human table and what became of the promises first, one JSON line last; the whole goes to
benchmarks/results/physics.json. The exit status is 1 when a promise is broken.
"""

import contextlib
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.repeating import Repeating, settings
from deploy import engines, rig
from deploy.calibration import Calibration
from deploy.head.model import DEAD_TIME_S
from deploy.head.pacer import Pacer
from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.robots.sim import SimRobot
from deploy.run import ASSETS
from deploy.timing import StageTimes
from dyad.clock import FPS, FakeClock, MonotonicClock
from dyad.config import parse, run_main
from dyad.provenance import run_card, write_json

CORES = 2
WAYS = ("own thread", "on demand")
CHANNELS = ("corner_up_left", "brow_inner_right")
"""Calibrated; all servos are alike."""
SHARE = 0.8
"""Of the travel that they move."""
PHYSICS_MS = 4.0
"""Two physics steps: from a command to the step that knows it, and the step whose start the sensors show."""
SAME_MS = 3.0
"""Glass to motor may differ by so much between rounds of the same kind."""
SLOWER = 1.1
"""So may the 99th percentile of ticks, as a ratio."""
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is played, how often and how long."""

    engine: Path = ASSETS / "engine"
    """Engine folder."""
    source: Path = ASSETS / "clip.mp4"
    """Video of a speaker."""
    seconds: float = 30.0
    """Of every round."""
    rounds: int = 4
    """Of each way, in turns."""
    out: Path = Path("benchmarks/results/physics.json")
    """Results file."""


def head(way: str, clock: MonotonicClock) -> SimRobot:
    """The simulated head, living either way; not open."""
    robot = SimRobot(Calibration.load("sim"))
    robot.live_by(clock if way == WAYS[0] else FakeClock())
    return robot


def play(way: str, config: Config) -> Row:
    """One round of the loop in real time."""
    clock, times = MonotonicClock(), StageTimes()
    engine = engines.load(config.engine)
    link = LocalLink(robot := head(way, clock), clock, times=times.add)
    if way != WAYS[0]:
        robot.live_by(FakeClock())  # the link has just told it whose time it is
    source = Repeating(config.source, engine.manifest.spec, round(config.seconds * FPS))
    loop = Loop(engine, link, clock, times=times)
    try:
        link.open(clock.now_s())
        source.wait_until_ready()
        began_s, busy_s = time.monotonic(), time.process_time()
        loop.run(source)
        took_s, busy_s = time.monotonic() - began_s, time.process_time() - busy_s
        status, paced = link.status(), _paced(robot.pacer)
    finally:
        link.close(home=True)
        source.close()
    stages = times.summary()
    return {
        **{f"tick_{p}_ms": q for p, q in _percentiles(np.array(link.heart.tick_ms)).items()},
        **{f"{stage}_{p}": stages[stage][p] for stage in ("motion", "send") for p in ("p50_ms", "p99_ms")},
        "loop_total_p99_ms": stages["total"]["p99_ms"],
        "busy_share_of_a_core": round(busy_s / took_s, 4),
        "commands_skipped": link.heart.skipped_ticks,
        "frames_missed": loop.trace.missed_ticks,
        "glass_to_motor_ms": round(1000 * status.glass_to_motor_s, 1),
        "motor_lag_ms": round(1000 * status.motor_lag_s, 1),
        **paced,
    }


def _percentiles(values: Any) -> Row:
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in (50, 95, 99)}


def _paced(pacer: Pacer | None) -> Row:
    """How the physics kept its deadlines, where it has any."""
    if pacer is None:
        return {}
    return {
        "steps": pacer.steps,
        "late_steps_share": round(pacer.late_steps / pacer.steps, 5),
        "worst_step_late_ms": round(1000 * pacer.worst_late_s, 2),
    }


def calibrate(way: str, *, busy: bool) -> Row:
    """What the head's own sensors tell of its delays, with idle cores or beside two threads' worth of work."""
    clock = MonotonicClock()
    robot = head(way, clock)
    channels = [robot.calibration.position(name) for name in CHANNELS]
    with _neighbour() if busy else contextlib.nullcontext():
        found = rig.calibrated(robot.calibration, rig.measure(robot, clock, channels, SHARE))
    name = "busy" if busy else "idle"
    return {
        f"dead_time_{name}_ms": round(1000 * found.dead_time_s, 1),
        f"time_constant_{name}_ms": round(1000 * found.time_constant_s, 1),
    }


@contextlib.contextmanager
def _neighbour() -> Generator[None]:
    """A thread of this process that computes in Python all the time and never gives its lock away unasked."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            sum(range(1000))

    thread = threading.Thread(target=work, name="neighbour")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure(config: Config) -> dict[str, Any]:
    """All rounds, both ways in turns; which way comes first changes from round to round."""
    rounds: dict[str, list[Row]] = {way: [] for way in WAYS}
    for turn in range(config.rounds):
        for way in WAYS if turn % 2 == 0 else WAYS[::-1]:
            row = play(way, config) | calibrate(way, busy=False) | calibrate(way, busy=True)
            rounds[way].append(row)
            print(f"round {turn + 1} {way:10s}: a tick's p99 {row['tick_p99_ms']:.2f} ms", flush=True)
    medians = {way: _medians(rows) for way, rows in rounds.items()}
    return {"ways": medians, "rounds": rounds, "set_dead_time_ms": 1000 * DEAD_TIME_S}


def _medians(rows: list[Row]) -> Row:
    return {key: round(statistics.median(row[key] for row in rows), 5) for key in rows[0]}


def _neighbours() -> dict[str, Any]:
    """How much others want of the machine, and whether we go before them."""
    first = sys.platform == "linux" and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)
    return {"load_average": round(os.getloadavg()[0], 2), "real_time_priority": first}


TICK_MS = 1000 / 60
"""Of the controller: a step that is late by less is made before anybody asks. Beside two busy threads on two cores, and
without a priority of its own, a thread is woken late now and then."""


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """What is promised of the head's own thread."""
    alone, asked = (found["ways"][way] for way in WAYS)
    told_ms = alone["dead_time_idle_ms"] - found["set_dead_time_ms"]
    return {
        "the sensors tell the set dead time within two physics steps": abs(told_ms) <= PHYSICS_MS,
        "glass to motor is not worse than on demand": (
            alone["glass_to_motor_ms"] <= asked["glass_to_motor_ms"] + SAME_MS
        ),
        "95 of 100 steps on time, and none a tick of the controller late": (
            alone["late_steps_share"] <= 0.05 and alone["worst_step_late_ms"] < TICK_MS
        ),
        "a controller's tick is not slower at p99": alone["tick_p99_ms"] <= SLOWER * asked["tick_p99_ms"],
        "no frame of the loop is missed for it": alone["frames_missed"] <= asked["frames_missed"],
    }


def print_table(found: dict[str, Any]) -> None:
    """One column per way."""
    print(f"\n{'median of the rounds':28s}" + "".join(f"{way:>12s}" for way in WAYS))
    for key in found["ways"][WAYS[0]]:
        cells = [found["ways"][way].get(key) for way in WAYS]
        print(f"{key:28s}" + "".join(f"{'–' if c is None else f'{c:g}':>12}" for c in cells))


def main(argv: list[str] | None = None) -> int:
    """Play, print, write; 1 when a promise is broken."""
    config = parse(Config, argv, prog="python -m benchmarks.physics", description=(__doc__ or "").splitlines()[0])
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) > CORES:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    before = _neighbours()
    found = measure(config) | {"neighbours_before": before, "neighbours_after": _neighbours()}
    print_table(found)
    found["verdicts"] = verdicts(found)
    for promise, kept in found["verdicts"].items():
        print(f"{'kept  ' if kept else 'BROKEN'} {promise}")
    found["run"] = run_card(command="python -m benchmarks.physics", config=settings(config))
    write_json(config.out, found)
    print(json.dumps(found))
    return 0 if all(found["verdicts"].values()) else 1


if __name__ == "__main__":
    run_main(main)
