"""A run seen from outside: health, metrics, stop and arm, for `deploy.run --http`."""

from typing import Any

from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.safety import metrics
from deploy.safety.http import Pages
from deploy.safety.metrics import Metric

UNWELL = ("stopped", "released", "lost")


def pages(link: LocalLink, loop: Loop) -> Pages:
    """What the pages show and do for a robot in this process."""

    def health() -> tuple[bool, dict[str, Any]]:
        status, trace = link.status(), loop.trace
        well = link.heart.beats and status.state not in UNWELL
        words = {"state": status.state, "stop_reason": status.stop_reason, "ticks": trace.played}
        ages = {"beat_age_s": round(link.heart.silent_s, 3), "last_plan_age_s": status.last_plan_age_s}
        return well, words | ages | {"missed_ticks": trace.missed_ticks}

    def text() -> str:
        return metrics.text([*metrics.of_status(link.status()), *_of_loop(loop)])

    return Pages(health, text, link.stop, link.heart.rearm)


def _of_loop(loop: Loop) -> list[Metric]:
    """Ticks and stage times of the loop."""
    trace = loop.trace
    counts = {"played": trace.played, "with_face": trace.faces, "missed": trace.missed_ticks}
    counts |= {"late": trace.late_ticks, "refused": trace.refused_frames}
    quantiles = {"p50_ms": "0.5", "p95_ms": "0.95", "p99_ms": "0.99"}
    times = [
        ({"stage": stage, "quantile": quantiles[p]}, ms / 1000)
        for stage, row in loop.times.summary().items()
        for p, ms in row.items()
    ]
    return [
        Metric("rapport_ticks_total", "counter", "Ticks of the loop.", [({"what": k}, v) for k, v in counts.items()]),
        Metric("rapport_stage_seconds", "summary", "Duration of the loop's stages since the start.", times),
    ]
