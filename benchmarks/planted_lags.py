"""Does the student answer when the listeners did? Mean answer to every kind of event: listeners beside predictions.

    python -m benchmarks.planted_lags --dataset out/dyads --predictions out/predictions

For each kind of event and the unit that answers it most, the mean curve around all onsets of the held-out sessions, and
when it has risen half-way to its peak. The generator's median lag stands beside it; a curve also needs its attack.
Writes a results file; the last line is one JSON object. Frames are 30 Hz.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.comparison import put_between
from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.config import as_dict, parse, run_main
from dyad.layouts import processed
from dyad.predictions import PredictionStore
from dyad.provenance import run_card, write_json
from dyad.synthetic.bound import read_events
from dyad.synthetic.listener import REACTIONS

BEFORE, AFTER = FPS, 4 * FPS
"""Frames of the curve before and after the onset."""
LEAST = 15
"""Events of a kind that a mean curve needs."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Held-out sessions and what was predicted of them."""

    dataset: Path
    """Synthetic dyads."""
    predictions: tuple[Path, ...]
    """Prediction stores of python -m deploy.predict; several are averaged (seeds of one arm)."""
    horizon: int = 4
    """Which of the predictions, frames ahead."""
    out: Path = Path("benchmarks/results/planted_lags.json")
    """Results file."""
    report: Path | None = None
    """Markdown file whose part between <!-- lags:begin --> and <!-- lags:end --> becomes the table."""


def half_rise_s(curve: NDArray[np.float64]) -> float:
    """Seconds after the onset at which a mean curve [BEFORE + AFTER] reaches half its peak above what was before."""
    rise = curve[BEFORE:] - curve[:BEFORE].mean()
    top = float(rise.max())
    if top <= 0:
        return float("nan")
    at = int(np.argmax(rise >= top / 2))
    before = rise[at - 1] if at else 0.0
    return max(float((at - (rise[at] - top / 2) / max(rise[at] - before, 1e-9)) / FPS), 0.0)


def answered_by(kind: str) -> tuple[str, float]:
    """The unit that answers a kind of event most, and the planted median lag in seconds."""
    reaction = max(REACTIONS[kind], key=lambda r: r.probability * max(r.units.values()))
    return max(reaction.units, key=lambda u: reaction.units[u]), reaction.lag_s


def measure(config: Config) -> list[dict[str, Any]]:
    """One row per kind of event."""
    stores = [PredictionStore.open(path, au_names=SEED17.units) for path in config.predictions]
    if config.horizon not in stores[0].horizons:
        raise ValueError(f"horizon {config.horizon} is not predicted; choose one of {list(stores[0].horizons)}")
    column = stores[0].horizons.index(config.horizon)
    true: dict[str, list[NDArray[np.float64]]] = {}
    said: dict[str, list[NDArray[np.float64]]] = {}
    for session in processed.load(config.dataset, "val", au_names=SEED17.units):
        events, n = read_events(processed.root_of(config.dataset) / "truth" / f"{session.id}.npz")
        prob = np.mean([store.read(session.id).prob[:, column] for store in stores], axis=0)
        shifted = np.concatenate([np.repeat(prob[:1], config.horizon, axis=0), prob])[: len(prob)]
        for event in events:
            if BEFORE <= event.onset < min(n, session.n_frames) - AFTER:
                unit = SEED17.index(answered_by(event.kind)[0])
                span = slice(event.onset - BEFORE, event.onset + AFTER)
                true.setdefault(event.kind, []).append(session.prob[span, unit])
                said.setdefault(event.kind, []).append(shifted[span, unit])
    rows = []
    for kind in sorted(true):
        if len(true[kind]) < LEAST:
            continue
        unit, planted = answered_by(kind)
        curves = [np.mean(curve[kind], axis=0) for curve in (true, said)]
        rises = [float((c[BEFORE:] - c[:BEFORE].mean()).max()) for c in curves]
        lags = [half_rise_s(c) for c in curves]
        if np.isnan(lags).any():
            print(f"left out: {kind}, whose mean curve of {unit} never rises")
            continue
        rows.append(
            {
                "event": kind,
                "unit": unit,
                "count": len(true[kind]),
                "planted_lag_s": planted,
                "listeners_s": round(lags[0], 3),
                "student_s": round(lags[1], 3),
                "listeners_rise": round(rises[0], 3),
                "student_rise": round(rises[1], 3),
            }
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table and the JSON line, write the file."""
    config = parse(Config, argv, prog="python -m benchmarks.planted_lags", description=(__doc__ or "").split("\n")[0])
    rows = measure(config)
    lines = [
        "| event | unit | events | planted lag | listeners half-way | student half-way | rise, listeners / student |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['event']} | {r['unit']} | {r['count']} | {r['planted_lag_s']:.2f} s | {r['listeners_s']:.2f} s "
        f"| {r['student_s']:.2f} s | {r['listeners_rise']:.2f} / {r['student_rise']:.2f} |"
        for r in rows
    ]
    print("\n".join(lines))
    if config.report is not None:
        put_between(config.report, "lags", "\n".join(lines))
    weight = np.array([r["count"] * r["listeners_rise"] for r in rows])
    gap = np.array([r["student_s"] - r["listeners_s"] for r in rows])
    summary = {
        "weighted_mean_gap_s": round(float((gap * weight).sum() / weight.sum()), 3),
        "weighted_mean_abs_gap_s": round(float((np.abs(gap) * weight).sum() / weight.sum()), 3),
    }
    print(summary)
    result = {**summary, "rows": rows, "run": run_card(command="benchmarks/planted_lags.py", config=as_dict(config))}
    write_json(config.out, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_main(main)
