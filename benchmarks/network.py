"""What a bad network does to the face: plans through real sockets to the controller of the simulated head.

    python -m benchmarks.network

Delays of 10 to 100 ms, 2 % loss, overtaking and a 400 ms outage, once as datagrams and once as TCP has them, beside a
clean loopback connection and a controller in the same process. Plans follow a script, a smooth function of time, so
that every commanded pose can be told to be of its moment. The loop's clock runs 1000 s and 100 ppm ahead.
A human table and what became of the promises first, one JSON line last; `--out` writes the results file. The exit
status is 1 when a promise is broken.
"""

import contextlib
import dataclasses
import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bad_network import BadNetwork, Weather
from benchmarks.network_judge import Script, extremes, home_after_s, judge, verdicts
from benchmarks.network_messages import formats
from benchmarks.repeating import settings
from deploy import robots
from deploy.link import LocalLink
from deploy.motion.heart import Heart
from deploy.motion.states import Moment
from deploy.net.address import listen
from deploy.net.client import RemoteLink
from deploy.net.server import ControllerServer
from deploy.plan import AUPlan
from dyad.clock import FPS, FRAME_S, MonotonicClock
from dyad.config import parse, run_main
from dyad.provenance import run_card, write_json

SENSE_TO_PLAN_S = 0.02
"""What face, features and student take before a plan is there."""
SILENCE_S = 1.7
OUTAGE_AT = 0.7
"""Share of the time after which the outage begins."""
WEATHERS: dict[str, Weather | None] = {
    "same process": None,
    "clean socket": Weather(kind="stream", delay_s=(0.0, 0.0), loss=0.0),
    "datagrams": Weather(kind="datagrams"),
    "stream": Weather(kind="stream"),
}
CLEAN = ("same process", "clean socket")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How long each network is tried."""

    seconds: float = 30.0
    """Of each condition."""
    outage_s: float = 0.4
    """Length of the outage."""
    seed: int = 0
    """Of the network's luck."""
    out: Path | None = None
    """Results file."""


class LoopClock:
    """Another machine's clock: ahead, and faster."""

    ahead_s, drift = 1000.0, 1e-4

    def now_s(self) -> float:
        """Its time."""
        return self.of(MonotonicClock().now_s())

    def of(self, here_s: float) -> float:
        """Its time when this machine's is `here_s`."""
        return here_s * (1 + self.drift) + self.ahead_s

    def sleep_until(self, time_s: float) -> None:
        """Until its time is `time_s`."""
        MonotonicClock().sleep_until((time_s - self.ahead_s) / (1 + self.drift))


def send(link: Any, script: Script, seconds: float, clock: MonotonicClock, loop_clock: Any) -> None:
    """Thirty plans a second, as a loop would deliver them."""
    began_s, seq = clock.now_s(), 0
    deliver = link.offer if isinstance(link, Tap) else link.deliver
    while seq < seconds * FPS:
        captured_s = began_s + seq * FRAME_S
        clock.sleep_until(captured_s + SENSE_TO_PLAN_S)
        deliver(script.plan(seq, loop_clock.of(captured_s), captured_s))
        seq += 1


class SameClock(MonotonicClock):
    """The controller's own."""

    def of(self, here_s: float) -> float:
        """The same."""
        return here_s


class Tap:
    """Between the network and the heart: writes down when which plan came."""

    def __init__(self, heart: Heart, clock: MonotonicClock) -> None:
        self._heart, self._clock = heart, clock
        self.came: list[tuple[float, int, float]] = []
        """Time of arrival, number, time of the last row."""

    def offer(self, plan: AUPlan) -> None:
        """Write down, pass on."""
        self.came.append((self._clock.now_s(), plan.seq, float(plan.target_times_s[-1])))
        self._heart.offer(plan)

    def stop(self, reason: str) -> None:
        """Pass on."""
        self._heart.stop(reason)

    def rest(self, why: str) -> None:
        """Pass on."""
        self._heart.rest(why)

    def fault(self, reason: str) -> None:
        """Pass on."""
        self._heart.fault(reason)

    def report(self) -> dict[str, Any]:
        """Pass on."""
        return self._heart.report()


@contextlib.contextmanager
def connected(name: str, config: Config, tap: Tap) -> Generator[tuple[Any, Any, BadNetwork | None]]:
    """What delivers plans under a condition, the loop's clock, and the network between."""
    weather = WEATHERS[name]
    if weather is None:
        yield tap, SameClock(), None
        return
    listener = listen("127.0.0.1:0", None)
    server = ControllerServer(listener, tap, SameClock(), robot="sim")
    server.start()
    outages_s = ((OUTAGE_AT * config.seconds, config.outage_s),) if weather.loss else ()
    network = BadNetwork(listener.getsockname(), dataclasses.replace(weather, outages_s=outages_s), config.seed)
    far = RemoteLink(network.address, LoopClock())
    far.open(LoopClock().now_s())
    try:
        yield far, LoopClock(), network
    finally:
        far.close(home=False)
        server.close()
        network.close()


def run(name: str, config: Config) -> dict[str, Any]:
    """One condition, from open to close; its figures."""
    clock, robot, script = MonotonicClock(), robots.load("sim"), Script()
    moments: list[Moment] = []
    near = LocalLink(robot, clock, watch=moments.append)
    tap = Tap(near.heart, clock)
    near.open(clock.now_s())
    try:
        with connected(name, config, tap) as (link, loop_clock, network):
            send(link, script, config.seconds, clock, loop_clock)
            counts, error_ms = near.status().counts, clock_error_ms(link, clock)
            moved = list(moments)
            clock.sleep_until(clock.now_s() + SILENCE_S)  # no more plans: the dead-man's turn
    finally:
        near.close(home=True)
    return {
        **judge(robot.calibration, script, moved, tap.came),
        **extremes(robot.calibration, moments),
        **{k: getattr(counts, k) for k in ("taken", "late", "old", "refused", "gaps")},
        "replaced": link.counts.replaced if isinstance(link, RemoteLink) else 0,
        "lost": network.lost if network else 0,
        "overtaken": network.overtaken if network else 0,
        "skipped_ticks": near.heart.skipped_ticks,
        "clock_error_ms": error_ms,
        "home_after_s": home_after_s(moments, tap.came),
    }


def clock_error_ms(link: Any, clock: MonotonicClock) -> float | None:
    """How wrong the loop is about the controller's time, now."""
    if not isinstance(link, RemoteLink):
        return None
    here_s = clock.now_s()
    there_s = link.controller_time_s(LoopClock().of(here_s))
    return None if there_s is None else round(1000 * (there_s - here_s), 2)


COLUMNS = {
    "taken": "taken",
    "replaced": "replaced unsent",
    "late+old": "dropped late or old",
    "lost": "lost",
    "overtaken": "overtaken",
    "frozen_with_plan": "frozen with plan",
    "ticks_without_plan": "ticks without plan",
    "replayed_late": "replayed late",
    "worst_velocity": "velocity / limit",
    "worst_acceleration": "acceleration / limit",
    "tracking_rms": "tracking rms",
    "clock_error_ms": "clock error ms",
    "home_after_s": "home after last plan s",
}


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """One column per condition."""
    print(f"{'':22s}" + "".join(f"{name:>14s}" for name in results))
    for key, title in COLUMNS.items():
        cells = [r["late"] + r["old"] if key == "late+old" else r[key] for r in results.values()]
        print(f"{title:22s}" + "".join(f"{'–' if c is None else c:>14}" for c in cells))


def main(argv: list[str] | None = None) -> int:
    """All conditions, one after another; 1 when a promise is broken."""
    config = parse(Config, argv, prog="python -m benchmarks.network", description=(__doc__ or "").splitlines()[0])
    results = {name: run(name, config) for name in WEATHERS}
    print_table(results)
    kinds = formats()
    for name, cost in kinds.items():
        print("{:22s}{bytes:8.0f} bytes, {write_us:6.1f} µs to write, {read_us:6.1f} µs to read".format(name, **cost))
    kept = verdicts(results, clean=CLEAN, plans=round(config.seconds * FPS))
    for promise, well in kept.items():
        print(f"{'kept  ' if well else 'BROKEN'} {promise}")
    report = {
        "run": run_card(command="python -m benchmarks.network", config=settings(config)),
        "networks": results,
        "messages": kinds,
        "verdicts": kept,
    }
    if config.out is not None:
        write_json(config.out, report)
    print(json.dumps(report))
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    run_main(main)
