"""A run seen from outside: health, metrics, stop and arm, for `deploy.run --http`."""

from typing import Any

from deploy.link import LocalLink
from deploy.loop import Loop
from deploy.safety import health, metrics
from deploy.safety.http import Pages
from deploy.safety.metrics import Metric

SILENT_S = 1.0
"""A loop that has not ticked for so long hangs."""


def pages(link: LocalLink, loop: Loop) -> Pages:
    """What the pages show and do for a robot in this process."""

    def is_well() -> tuple[bool, dict[str, Any]]:
        why, words = health.of_heart(link.heart)
        silent_s, trace = loop.silent_s, loop.trace
        if why is None and silent_s is not None and silent_s > SILENT_S:
            why = "the loop does not tick"
        ticks = {"ticks": trace.played, "missed_ticks": trace.missed_ticks}
        age = {"loop_age_s": None if silent_s is None else round(silent_s, 3)}
        return why is None, {"well": why is None, "why": why} | words | age | ticks

    def text() -> str:
        return metrics.text([*metrics.of_status(link.status()), *_of_loop(loop)])

    return Pages(is_well, text, link.stop, link.heart.rearm)


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
