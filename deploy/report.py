"""What a run amounts to: figures for the JSON report and the table on the terminal."""

import dataclasses
from typing import Any

import numpy as np

from deploy.calibration import Calibration
from deploy.loop import Loop
from deploy.motion.states import Status
from deploy.recording import Recorder, fastest
from deploy.sources import Source
from dyad.provenance import run_card

COARSE = 0.5
"""Per cent of a travel from which a robot's rounding is worth a word."""


def summarise(
    loop: Loop,
    source: Source,
    status: Status | None,
    recorder: Recorder,
    calibration: Calibration | None,
    *,
    ended: str,
    config: dict[str, Any],
) -> dict[str, Any]:
    """The report of a run; times in milliseconds, shares in [0, 1]. What is not known is None."""
    trace = loop.trace
    to_link_s = [tick.delivered_at_s - tick.captured_at_s for tick in trace.ticks]
    return {
        "ended": ended,
        "ticks": trace.played,
        "missed_ticks": trace.missed_ticks,
        "late_ticks": trace.late_ticks,
        "refused_frames": trace.refused_frames,
        "face_share": round(trace.faces / max(trace.played, 1), 4),
        "stages": loop.times.summary(),
        "capture_to_plan_ms": round(1000 * float(np.median(to_link_s)), 1) if to_link_s else None,
        **_motion(status, recorder, calibration),
        "engine": loop.engine.name,
        "robot": calibration.robot if calibration else config.get("robot"),
        "source": source.name,
        "source_counts": dataclasses.asdict(source.counts),
        "run": run_card(command="deploy.run", config=config),
    }


def _motion(status: Status | None, recorder: Recorder, calibration: Calibration | None) -> dict[str, Any]:
    """What the controller did. A delay from the glass is known while someone is followed, and None after that."""
    figures: dict[str, Any] = {}
    if status is not None:
        figures |= {
            "glass_to_motor_ms": round(1000 * status.glass_to_motor_s, 1) if status.state == "following" else None,
            "compensated_ms": round(1000 * status.compensated_s, 1),
            "look_ahead_ms": round(1000 * status.look_ahead_s, 1),
            "smoothing_and_limits_ms": round(1000 * status.own_lag_s, 1),
            "motor_lag_ms": round(1000 * status.motor_lag_s, 1),
            "motor_lag_measured": status.measured,
            "controller": status.as_dict(),
        }
    when, sent = recorder.sent()
    if calibration is not None and len(when):
        paths = recorder.paths()
        speeds = [fastest(*path, calibration.limits[0]) for path in paths]
        figures |= {
            "commands": sum(len(times) for times, _ in paths),
            "fastest_share_per_s": round(max((speed for speed, _ in speeds), default=0.0), 3),
            "fastest_of_limit": round(max((share for _, share in speeds), default=0.0), 4),
            "rounded_by_up_to": round(recorder.rounding(), 4),
            "share_min": round(float(sent.min(initial=0.0)), 4),
            "share_max": round(float(sent.max(initial=0.0)), 4),
        }
    return figures


def print_table(report: dict[str, Any]) -> None:
    """A timing table for a person."""
    print(f"\n{'stage':10s} {'p50 ms':>8s} {'p95 ms':>8s} {'p99 ms':>8s}")
    for stage, times in report["stages"].items():
        print(f"{stage:10s} {times['p50_ms']:8.2f} {times['p95_ms']:8.2f} {times['p99_ms']:8.2f}")
    print(
        f"\n{report['ticks']} ticks at 30 Hz, {report['missed_ticks']} missed, {report['late_ticks']} late, "
        f"{report['refused_frames']} refused; face in {100 * report['face_share']:.0f} % of them"
    )
    if (why := report.get("controller", {}).get("stop_reason")) is not None:
        print(f"stopped ({why}): since then no plan has moved the robot, and until it is armed none will")
    if "glass_to_motor_ms" in report and report["glass_to_motor_ms"] is None:
        print(f"glass to motor unknown: nobody was followed at the end (motors {report['motor_lag_ms']:.0f} ms)")
    elif "glass_to_motor_ms" in report and report["ticks"]:
        how = "measured on the joints" if report["motor_lag_measured"] else "as the calibration says"
        print(
            f"glass to motor {report['glass_to_motor_ms']:.0f} ms (capture to plan "
            f"{report['capture_to_plan_ms']:.1f}, smoothing and limits {report['smoothing_and_limits_ms']:.0f}, motors "
            f"{report['motor_lag_ms']:.0f} {how}), compensated by looking "
            f"{report['compensated_ms']:.0f} ms ahead of the capture"
        )
    if "fastest_of_limit" in report:
        coarse = 100 * report["rounded_by_up_to"]
        print(
            f"fastest movement {report['fastest_share_per_s']:.2f} of a travel per second, "
            f"{100 * report['fastest_of_limit']:.0f} % of its limit"
            + (f", which the robot rounds by up to {coarse:.0f} % of a travel" if coarse >= COARSE else "")
            + f"; engine {report['engine']}; robot {report['robot']}"
        )
    else:
        print(f"engine {report['engine']}; robot {report['robot']}")
