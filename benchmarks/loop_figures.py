"""What the README says of the loop: the live run, the servos, a bad network and the soak, from their results files."""

from typing import Any


def _where(run: dict[str, Any]) -> str:
    machine = run["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, {run['time_utc'][:10]}"


def live(result: dict[str, Any]) -> str:
    """A minute of the loop in real time."""
    stages, seconds = result["stages"], result["ticks"] / 30
    source = f"[results](benchmarks/results/loop.json), `python -m benchmarks.loop`, {_where(result['run'])}"
    intro = f"{seconds:.0f} s of {result['source']}, in real time on the simulated head ({source}):"
    lines = [intro, "", "| ms | " + " | ".join(stages) + " |", "|---|" + "---|" * len(stages)]
    for p in ("p50", "p95", "p99"):
        lines.append(f"| {p} | " + " | ".join(f"{row[f'{p}_ms']:.1f}" for row in stages.values()) + " |")
    said = [f"{'kept' if well else 'NOT kept'}: {promise}" for promise, well in result["verdicts"].items()]
    fastest = 100 * result["fastest_of_limit"]
    lines += [
        "",
        f"{result['missed_ticks']} of {result['ticks']} ticks missed; {'; '.join(said)}.",
        f"Glass to motor {result['glass_to_motor_ms']:.0f} ms (motors {result['motor_lag_ms']:.0f}, by the joints),",
        f"read {result['compensated_ms']:.0f} ms ahead of the capture; fastest movement {fastest:.0f} % of its limit.",
    ]
    return "\n".join(lines)


def servos(result: dict[str, Any]) -> str:
    """How near to the intended moment the joints move."""

    def told(rows: list[dict[str, Any]]) -> str:
        cells = (
            f"{r['achieved_lag_ms']:+.0f} (worst {r['worst_lag_ms']:+.0f}) at {r['dead_time_ms']:.0f}" for r in rows
        )
        return ", ".join(cells)

    steps = sorted(row["recovered_after_s"] for row in result["step"])
    return (
        "On scripted expressions whose future is known (rises of 0.3 to 1.2 s, six curves) the joints are this many ms "
        f"behind the intended moment, for dead times of the servos in ms: {told(result['dead_times'])}; a frame is 33. "
        f"Where a plan takes 20 ms from capture to controller instead of 6: {told(result['dead_times_busy'])}. After a "
        f"step from 50 to 200 ms the joints are within a frame again {steps[0]:.2g} to {steps[-1]:.2g} s later "
        "([results](benchmarks/results/servo_lag.json), `python -m benchmarks.servo_lag`)."
    )


NETWORK = {
    "plans taken": lambda row: f"{row['taken']}",
    "dropped late or old": lambda row: f"{row['late'] + row['old']}",
    "frozen though plan remained": lambda row: f"{row['frozen_with_plan']}",
    "replayed late": lambda row: f"{row['replayed_late']}",
    "worst speed of limit": lambda row: f"{row['worst_velocity']:.3f}",
    "worst acceleration of limit": lambda row: f"{row['worst_acceleration']:.3f}",
    "tracking error, share of travel": lambda row: f"{row['tracking_rms']:.3f}",
}


def network(result: dict[str, Any]) -> str:
    """What a bad network does to the motion."""
    outage_ms = 1000 * result["run"]["config"]["outage_s"]
    source = "[results](benchmarks/results/network.json), `python -m benchmarks.network`"
    spoilt = f"10–100 ms of jitter, 2 % loss, overtaking and an outage of {outage_ms:.0f} ms"
    intro = (
        f"Loop and controller over a real socket, spoilt by {spoilt} (“stream”: a loss delays what follows, as in TCP"
    )
    lines = [f"{intro}; {source}):", "", "| | " + " | ".join(NETWORK) + " |", "|---|" + "---|" * len(NETWORK)]
    lines += [
        f"| {name} | " + " | ".join(tell(row) for tell in NETWORK.values()) + " |"
        for name, row in result["networks"].items()
    ]
    return "\n".join(lines)


def soak(result: dict[str, Any]) -> str:
    """Half an hour on a fake clock."""
    minutes, speed = len(result["minutes"]), result["times_real_time"]
    p50, p99 = result["busy_p50_late_of_early"], result["busy_p99_late_of_early"]
    return (
        f"{minutes} minutes of stream at {speed:.1f} times real time on a fake clock: memory within "
        f"{abs(result['memory_change_mb']):.1f} MB of the first minute's; the last five minutes' ticks take {p50:.2f} "
        f"(p50) and {p99:.2f} (p99) of the processor time of minutes 2 to 6, medians, set against a fixed piece of "
        f"work that took {result['yardstick_late_of_early']:.2f} of its own then; the very last minute's p99 is "
        f"{result['busy_p99_last_of_second']:.2f} of the second's "
        "([results](benchmarks/results/soak.json), `python -m benchmarks.soak`)."
    )
