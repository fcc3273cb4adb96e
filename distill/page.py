"""The report as one HTML page that needs nothing beside it: tables, and pictures as embedded PNG."""

from __future__ import annotations

import base64
import html
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import scoring
from distill.scoring import MODEL
from dyad.clock import FPS

if TYPE_CHECKING:
    from distill.report import Report

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
img{max-width:100%}pre{background:#f6f6f6;padding:1rem;overflow:auto}"""
COLOURS = {MODEL: "#1f5fa8", "mimicry": "#c98a1b", "true": "#555555"}


def render(report: Report) -> str:
    """The whole page."""
    import matplotlib as mpl

    mpl.use("Agg")
    goodness = scoring.goodness(report.evidence, report.horizon)
    order = np.argsort(np.nan_to_num(goodness, nan=-np.inf))
    parts = [
        f"<pre>{html.escape(report.table())}</pre>",
        "<h2>Concordance of every unit</h2>" + _units_picture(report),
        "<h2>How far ahead</h2>" + _horizon_picture(report),
    ]
    for title, index in (("A good session", int(order[-1])), ("A bad session", int(order[0]))):
        case = report.evidence.cases[index]
        parts.append(f"<h2>{title}: {html.escape(case.session.id)}, skill {goodness[index]:.2f}</h2>")
        parts.append(_session_picture(report, index))
    parts.append("<h2>Every unit</h2>" + _units_table(report))
    body = "\n".join(parts)
    return (
        "<!doctype html><html lang='en'><meta charset='utf8'><title>Evaluation</title>"
        f"<style>{STYLE}</style><h1>Evaluation</h1>{body}</html>\n"
    )


def _png(figure: Any) -> str:
    import matplotlib.pyplot as plt

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"


def _units_picture(report: Report) -> str:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 3.2))
    x = np.arange(len(report.evidence.au_names))
    for shift, name in ((-0.2, MODEL), (0.2, "mimicry")):
        if name in report.main:
            scores = report.main[name].per_unit["ccc"]
            value, low, high = (np.nan_to_num([getattr(s, k) for s in scores]) for k in ("value", "low", "high"))
            error = np.maximum([value - low, high - value], 0)
            axis.bar(x + shift, value, 0.38, yerr=error, color=COLOURS[name], label=name, error_kw={"lw": 1})
    axis.set_xticks(x, [n.removeprefix("AU") for n in report.evidence.au_names])
    axis.set_xlabel("action unit")
    axis.set_ylabel("CCC")
    axis.axhline(0, color="black", lw=0.6)
    axis.legend(frameon=False)
    return _png(figure)


def _horizon_picture(report: Report) -> str:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
    horizons = list(report.systems)
    for axis, name, title in zip(axes, ("macro_ccc", "macro_skill"), ("macro CCC", "skill"), strict=True):
        for system in (MODEL, "mimicry"):
            if system in report.main:
                scores = [report.systems[h][system].macro[name] for h in horizons]
                x = [h * 1000 / FPS for h in horizons]
                axis.plot(x, [s.value for s in scores], color=COLOURS[system], label=system)
                axis.fill_between(
                    x, [s.low for s in scores], [s.high for s in scores], color=COLOURS[system], alpha=0.2, lw=0
                )
        axis.set_xlabel("ms ahead")
        axis.set_title(title)
    axes[0].legend(frameon=False)
    return _png(figure)


def _session_picture(report: Report, index: int, units: int = 4, seconds: int = 40) -> str:
    """Prediction against truth of the units that move most."""
    import matplotlib.pyplot as plt

    case, horizon = report.evidence.cases[index], report.horizon
    true = case.true(horizon)[: seconds * FPS]
    said = case.predicted.prob[: len(true), report.evidence.horizons.index(horizon)]
    spread = np.where(np.isnan(true).all(axis=0), -1, np.nan_to_num(true).std(axis=0))
    chosen = np.argsort(-spread)[:units]
    figure, axes = plt.subplots(len(chosen), 1, figsize=(9, 1.3 * len(chosen)), sharex=True, squeeze=False)
    for axis, unit in zip(axes[:, 0], chosen, strict=True):
        time_s = (np.arange(len(true)) + horizon) / FPS
        axis.plot(time_s, true[:, unit], color=COLOURS["true"], lw=1, label="listener")
        axis.plot(time_s, said[:, unit], color=COLOURS[MODEL], lw=1.4, label="model")
        axis.set_ylim(0, 1)
        axis.set_ylabel(report.evidence.au_names[unit])
    axes[0, 0].legend(frameon=False, ncol=2, loc="upper right")
    axes[-1, 0].set_xlabel("seconds")
    return _png(figure)


def _units_table(report: Report) -> str:
    def number(value: float) -> str:
        return f"{value:.3f}" if math.isfinite(value) else "–"

    act, scores = report.activity, report.main[MODEL].per_unit
    head = "<tr><th>unit</th>" + "".join(
        f"<th>{n}</th>" for n in ("CCC", "95 %", "Pearson", "skill", "MAE", "F1", "at", "AUPRC", "base rate")
    )
    rows = []
    for a, unit in enumerate(report.evidence.au_names):
        ccc = scores["ccc"][a]
        values = [number(ccc.value), f"{number(ccc.low)} … {number(ccc.high)}"]
        values += [number(scores[k][a].value) for k in ("pearson", "skill", "mae")]
        values += [number(v) for v in (act.f1[a].value, act.thresholds[a], act.auprc[a], act.base_rate[a])]
        rows.append(f"<tr><td>{html.escape(unit)}</td>" + "".join(f"<td>{v}</td>" for v in values) + "</tr>")
    return f"<table>{head}</tr>{''.join(rows)}</table>"
