"""The report as one HTML page that needs nothing beside it: tables, and pictures as embedded PNG."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING

import numpy as np

from distill import pictures, remarks, scoring, tables
from distill.scoring import MODEL
from distill.tables import Table, cell, number

if TYPE_CHECKING:
    from distill.report import Report

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0;font-size:13px;font-variant-numeric:tabular-nums;white-space:nowrap}
td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}
tr:nth-child(2) td{font-weight:600}.wide{overflow-x:auto}.note{color:#555;font-size:13px;margin:.2rem 0}
img{max-width:100%}"""
"""The model's row is the first of every table, and bold."""


def render(made: Report) -> str:
    """The whole page."""
    goodness = scoring.goodness(made.evidence, made.horizon)
    order = np.argsort(np.nan_to_num(goodness, nan=-np.inf))
    by_title = {t.title: t.html() for t in tables.all_of(made)}
    parts = [f"<p>{html.escape(made.evidence.source)}: {len(made.evidence.cases)} sessions</p>"]
    parts += [f"<p class='note'>{html.escape(line)}</p>" for line in remarks.remarks(made)]
    parts += [by_title["intensity"], _picture("Concordance of every unit", pictures.units(made))]
    parts += [_picture("How far ahead", pictures.horizons(made))]
    for title, index in (("A good session", int(order[-1])), ("A bad session", int(order[0]))):
        name = made.evidence.cases[index].session.id
        parts.append(_picture(f"{title}: {name}, skill {goodness[index]:.2f}", pictures.session(made, index)))
    parts += [by_title["active or not"], by_title["by frequency"]]
    parts += [_picture("Is a probability what it says?", pictures.reliability(made))]
    parts += [by_title["time and motors"], _picture("Lag behind the listener", pictures.lags(made))]
    parts += [_picture("Speed against the robot's limit", pictures.speed(made)), by_title["reactions"]]
    if made.draws is not None:
        parts += [by_title["the draws"], _picture("Draws around the prediction", pictures.draws(made, int(order[-1])))]
    parts.append(units_table(made).html())
    parts += [tables.by_unit(made, name, title).html() for name, title in (("ccc", "CCC"), ("f1", "F1"))]
    body = "\n".join(parts)
    return (
        "<!doctype html><html lang='en'><meta charset='utf8'><title>Evaluation</title>"
        f"<style>{STYLE}</style><h1>Evaluation</h1>{body}</html>\n"
    )


def _picture(title: str, png: bytes) -> str:
    source = base64.b64encode(png).decode()
    return f"<h2>{html.escape(title)}</h2><img alt='{html.escape(title)}' src='data:image/png;base64,{source}'>"


def units_table(made: Report) -> Table:
    """Every score of the model, unit by unit, with the truth's base rate and mimicry's concordance beside it."""
    scores, active = made.main[MODEL].per_unit, made.activity.systems[MODEL].per_unit
    mimicry = made.main["mimicry"].per_unit["ccc"] if "mimicry" in made.main else None
    columns = ("CCC", "mimicry's", "Pearson", "skill", "MAE", "RMSE", "F1", "at", "precision", "recall", "event F1",
               "AUPRC", "base rate", "ECE")  # fmt: skip
    rows: list[tuple[str, list[str]]] = []
    for a, unit in enumerate(made.evidence.au_names):
        cells = [cell(scores["ccc"][a]), number(mimicry[a].value if mimicry else None)]
        cells += [number(scores[k][a].value) for k in ("pearson", "skill", "mae", "rmse")]
        cells += [number(active["f1"][a].value), number(made.activity.thresholds[MODEL][a])]
        cells += [number(active[k][a].value) for k in ("precision", "recall", "event_f1", "auprc")]
        cells += [number(made.activity.base_rate[a]), number(active["ece"][a].value)]
        rows.append((unit, cells))
    return Table("every score of the model, unit by unit", columns, rows)
