"""A look inside in figures: the controller's and the network's, in the text format that Prometheus reads.

Source: Prometheus, "Exposition formats", version 0.0.4.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from deploy.motion.states import State, Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = get_args(State)


@dataclass(frozen=True)
class Metric:
    """One name with all its samples: labels → value."""

    name: str
    kind: Literal["counter", "gauge", "summary"]
    help: str
    samples: Sequence[tuple[Mapping[str, str], float | None]]


def text(metrics: Iterable[Metric]) -> str:
    """The page; a sample without a value is left out."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        lines += [
            f"{metric.name}{_labels(labels)} {value:.9g}" for labels, value in metric.samples if value is not None
        ]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for k, v in labels.items()}
    inside = ",".join(f'{k}="{v}"' for k, v in escaped.items())
    return f"{{{inside}}}" if inside else ""


def of_status(status: Status) -> list[Metric]:
    """What the controller says of itself."""
    ages = {"motor_lag": status.motor_lag_s, "own_lag": status.own_lag_s, "look_ahead": status.look_ahead_s}
    more = {"plan_left": status.plan_left_s, "last_plan_age": status.last_plan_age_s}
    counts = [({"what": name}, float(n)) for name, n in vars(status.counts).items()]
    states = [({"state": name}, float(name == status.state)) for name in STATES]
    may_hold = [({}, float(status.doubt is not None))]
    gauges = [
        Metric(f"rapport_{name}_seconds", "gauge", _HELP[name], [({}, value)]) for name, value in (ages | more).items()
    ]
    return [
        Metric("rapport_state", "gauge", "1 for the state that the controller is in.", states),
        Metric("rapport_events_total", "counter", "Plans, ticks and mishaps of the controller.", counts),
        Metric("rapport_stop_latched", "gauge", "1 after an emergency stop.", [({}, float(bool(status.stop_reason)))]),
        Metric("rapport_may_hold", "gauge", "1 where it was to let go and may hold on.", may_hold),
        *gauges,
    ]


_HELP = {
    "motor_lag": "From a command until the motors are there.",
    "own_lag": "From a goal until it is commanded.",
    "look_ahead": "How far beyond now the plan is read.",
    "plan_left": "Plan beyond now.",
    "last_plan_age": "Since the last valid plan came.",
}


def of_times(name: str, what: str, label: str, times_ms: Mapping[str, Sequence[float]]) -> Metric:
    """Median and 99th percentile of recent durations, in seconds, one row of samples per stage."""
    samples: list[tuple[Mapping[str, str], float | None]] = []
    for stage, values in times_ms.items():
        recent = tuple(values)
        for q in (0.5, 0.99) if recent else ():
            samples.append(({label: stage, "quantile": str(q)}, float(np.quantile(recent, q)) / 1000))
    return Metric(name, "summary", what, samples)


def of_network(report: Mapping[str, Any]) -> list[Metric]:
    """What the network side counts; the driver is a 0 or 1."""
    complaints = [({"kind": kind}, float(n)) for kind, n in report["complaints"].items()]
    return [
        Metric("rapport_driver", "gauge", "1 while a client drives.", [({}, float(report["driver"] is not None))]),
        Metric("rapport_connections_total", "counter", "Connections accepted.", [({}, float(report["connections"]))]),
        Metric("rapport_plans_total", "counter", "Plans handed on.", [({}, float(report["plans"]))]),
        Metric("rapport_complaints_total", "counter", "What others sent wrongly, by kind.", complaints),
    ]
