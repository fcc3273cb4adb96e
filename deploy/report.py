"""What a run amounts to: figures for the JSON report and the table on the terminal."""

from typing import Any

import numpy as np

from deploy.loop import Loop
from dyad.action_units import SEED17
from dyad.provenance import run_card


def summarise(loop: Loop, source: str, config: dict[str, Any]) -> dict[str, Any]:
    """The report of a finished run; times in milliseconds, shares in [0, 1]."""
    trace, limits = loop.trace, loop.robot.calibration
    sent = np.array(trace.sent) if trace.sent else np.zeros((1, len(SEED17.units)))
    passed_s = np.diff(trace.moved_at_s)[:, None]
    speed = np.abs(np.diff(sent, axis=0)) / passed_s if len(sent) > 1 else np.zeros((1, 1))
    to_send_s = float(np.median(trace.capture_to_send_s)) if trace.capture_to_send_s else 0.0
    return {
        "ticks": len(trace.frames),
        "missed_ticks": trace.missed_ticks,
        "late_ticks": trace.late_ticks,
        "refused_frames": trace.refused_frames,
        "face_share": round(float(np.mean([b is not None for b in trace.boxes])) if trace.boxes else 0.0, 4),
        "stages": loop.times.summary(),
        "glass_to_motor_ms": round(1000 * (to_send_s + loop.delay.motor_lag_s), 1),
        "capture_to_send_ms": round(1000 * to_send_s, 1),
        "motor_lag_ms": round(1000 * loop.delay.motor_lag_s, 1),
        "compensated_ms": round(1000 * loop.delay.look_ahead_s, 1),
        "au_min": round(float(sent.min()), 4),
        "au_max": round(float(sent.max()), 4),
        "fastest_au_per_s": round(float(speed.max()), 3),
        "velocity_limit_per_s": limits.velocity_per_s,
        "engine": loop.engine.name,
        "robot": limits.robot,
        "source": source,
        "run": run_card(command="deploy.run", config=config),
    }


def print_table(report: dict[str, Any]) -> None:
    """A timing table for a person."""
    print(f"\n{'stage':10s} {'p50 ms':>8s} {'p95 ms':>8s} {'p99 ms':>8s}")
    for stage, times in report["stages"].items():
        print(f"{stage:10s} {times['p50_ms']:8.2f} {times['p95_ms']:8.2f} {times['p99_ms']:8.2f}")
    print(
        f"\n{report['ticks']} ticks at 30 Hz, {report['missed_ticks']} missed, {report['late_ticks']} late, "
        f"{report['refused_frames']} refused; face in {100 * report['face_share']:.0f} % of them"
    )
    print(
        f"glass to motor {report['glass_to_motor_ms']:.0f} ms "
        f"(capture to send {report['capture_to_send_ms']:.1f}, motors {report['motor_lag_ms']:.0f} measured on the "
        f"joints), compensated by looking {report['compensated_ms']:.0f} ms ahead"
    )
    print(
        f"fastest movement {report['fastest_au_per_s']:.2f}/s within {report['velocity_limit_per_s']:.1f}/s; "
        f"engine {report['engine']}; robot {report['robot']}"
    )
