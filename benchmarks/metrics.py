"""What the challenge's scores cost, ours beside a plain implementation, pair by pair: same arrays, same numbers.

    python -m benchmarks.metrics    # two minutes; with `tslearn` and `numba` installed it compares with tslearn

The plain side is the algorithm of the published evaluation: `numpy.cov` per pair and channel, one `numpy.corrcoef` per
lag and channel, one full time warping per pair and group of channels (tslearn's where it is installed, else the same
double loop, compiled where numba is). Noise is the worst case of time warping: no neighbour is ruled out early. Both
sides take turns on one thread; processor seconds, medians, and the ratios of each turn. Memory is measured beside it
(`metrics_memory`). Writes benchmarks/results/metrics.json; the last line is one JSON object. Exits with 1 where a goal
is missed.
"""

import os

for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import importlib.metadata  # noqa: E402 - numpy reads the number of threads when it is imported
import importlib.util  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks import metrics_memory  # noqa: E402
from benchmarks.metrics_plain import plain_ccc, plain_distance, plain_dtw, plain_offset  # noqa: E402
from dyad.config import as_dict, parse, run_main  # noqa: E402
from dyad.metrics import react, synchrony, warping  # noqa: E402
from dyad.provenance import run_card, write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
Floats = NDArray[np.float32]
GOALS = {
    "CCC": 15.0,
    "TLCC": 50.0,
    "DTW, 2 neighbours": 3.0,
    "DTW, all neighbours": 3.0,
    "DTW, all neighbours, noise": 3.0,
}
"""Least ratio of the times."""
LARGEST_DIFFERENCE = 1e-6
"""Between the results of both sides."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much is scored, and how often."""

    items: int = 6
    """Speakers; each has two neighbours, or all items."""
    predictions: int = 10
    """Per item."""
    frames: int = 750
    """Per sequence."""
    rounds: int = 5
    """Turns of both sides."""
    seed: int = 0
    """Of the arrays."""
    out: Path = ROOT / "benchmarks" / "results" / "metrics.json"
    """Results file."""


def arrays(config: Config) -> tuple[Floats, Floats, Floats]:
    """Smooth speakers, targets that follow them late, and predictions that follow with other lags; 25 channels."""
    rng = np.random.default_rng(config.seed)
    walk = rng.normal(size=(config.items, config.frames + 100, 25))
    kernel = np.hanning(25) / np.hanning(25).sum()
    walk = np.apply_along_axis(lambda x: np.convolve(x, kernel, "same"), 1, walk)
    smooth = 1 / (1 + np.exp(-4 * walk))

    def late(lag: int, noise: float) -> NDArray[np.float64]:
        cut = smooth[:, 50 - lag : 50 - lag + config.frames]
        return np.clip(cut + noise * rng.normal(size=cut.shape), 0, 1)

    pred = np.stack([late(8 + 2 * k, 0.1) for k in range(config.predictions)], axis=1)
    return pred.astype(np.float32), late(12, 0.05).astype(np.float32), late(0, 0).astype(np.float32)


def best_of(score: Callable[[Floats, Floats], float], best: Callable[..., float], case: "Case") -> NDArray[np.float64]:
    """Best of all neighbours, pair by pair, [N, K]."""
    rows = [np.flatnonzero(row) for row in case.neighbours]
    return np.array(
        [[best(score(p, case.target[j]) for j in row) for p in x] for x, row in zip(case.pred, rows, strict=True)]
    )


@dataclass(frozen=True)
class Case:
    """What is scored."""

    pred: Floats
    target: Floats
    speaker: Floats
    neighbours: NDArray[np.float64]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it returned."""
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def compare(plain: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Medians of both sides, the ratio, its range, and the largest difference of the results."""
    ours()  # what is loaded or compiled once is not counted
    turns, difference = [], 0.0
    for _ in range(rounds):
        slow, expected = seconds(plain)
        fast, got = seconds(ours)
        turns.append((slow, fast, slow / fast))
        difference = max(difference, float(np.abs(np.asarray(expected) - np.asarray(got)).max()))
    slow, fast, ratio = np.median(turns, axis=0)
    ratios = [turn[2] for turn in turns]
    return {
        "plain_s": round(float(slow), 4),
        "ours_s": round(float(fast), 4),
        "ratio": round(float(ratio), 2),
        "ratio_least": round(min(ratios), 2),
        "ratio_most": round(max(ratios), 2),
        "largest_difference": difference,
    }


def rows_of(config: Config) -> tuple[dict[str, dict[str, Any]], str]:
    """Every comparison by name, and the plain time warping's name."""
    pred, target, speaker = arrays(config)
    n = config.items
    two, everything = np.maximum(np.eye(n), np.eye(n, k=1)), np.ones((n, n))
    two[-1, 0] = 1
    few, many = (Case(pred, target, speaker, neighbours) for neighbours in (two, everything))
    noise = Case(np.random.default_rng(config.seed).random(pred.shape, np.float32), target, speaker, everything)
    name, dtw = plain_dtw()
    plain_distance(dtw, pred[0, 0, :8], target[0, :8])
    rows = {
        "CCC": compare(
            lambda: best_of(plain_ccc, max, few),
            lambda: react.best_concordance(pred, target, two),
            config.rounds,
        ),
        "TLCC": compare(
            lambda: [[plain_offset(p, s) for p in x] for x, s in zip(pred, speaker, strict=True)],
            lambda: synchrony.synchrony(pred, speaker).offset,
            config.rounds,
        ),
    }
    for title, case in (
        ("DTW, 2 neighbours", few),
        ("DTW, all neighbours", many),
        ("DTW, all neighbours, noise", noise),
    ):
        rows[title] = compare(
            lambda case=case: best_of(lambda p, y: plain_distance(dtw, p, y), min, case),
            lambda case=case: react.nearest_distance(case.pred, target, case.neighbours),
            config.rounds,
        )
    if warping.kernel() is not warping.squared_distance:
        rows["DTW without numba, one prediction"] = without_numba(dtw, Case(pred[:, :1], target, speaker, two))
    return rows, name


def without_numba(dtw: Callable[[Any, Any], float], case: Case) -> dict[str, Any]:
    """Our numpy inner loop, which is what the scores run on without the extra."""
    fastest, warping.kernel = warping.kernel, lambda: warping.squared_distance
    try:
        return compare(
            lambda: best_of(lambda p, y: plain_distance(dtw, p, y), min, case),
            lambda: react.nearest_distance(case.pred, case.target, case.neighbours),
            2,
        )
    finally:
        warping.kernel = fastest


def missed(rows: dict[str, dict[str, Any]], memory: dict[str, dict[str, Any]]) -> list[str]:
    """The goals that were not reached, in words."""
    slow = [f"{n}: {rows[n]['ratio']} times as fast, wanted {g:g}" for n, g in GOALS.items() if rows[n]["ratio"] < g]
    wrong = [f"{n}: off by {r['largest_difference']:.1e}" for n, r in rows.items()
             if not r["largest_difference"] <= LARGEST_DIFFERENCE]  # fmt: skip
    wide = [f"{n}: memory grows with the power {m['growth']} of the items, wanted {metrics_memory.GOAL} or less"
            for n, m in memory.items() if m["growth"] > metrics_memory.GOAL]  # fmt: skip
    return slow + wrong + wide


def main(argv: list[str] | None = None) -> int:
    """Time, print the tables and the JSON line; 1 where a goal is missed."""
    config = parse(Config, argv, prog="python -m benchmarks.metrics", description=(__doc__ or "").splitlines()[0])
    rows, name = rows_of(config)
    memory = metrics_memory.measure(config.seed)
    print(f"{'score':36s} {'plain':>9s} {'ours':>9s} {'ratio':>8s}  {'difference':>10s}   CPU seconds, one thread")
    for title, row in rows.items():
        goal = f"goal {GOALS[title]:.0f}" if title in GOALS else ""
        print(
            f"{title:36s} {row['plain_s']:9.3f} {row['ours_s']:9.3f} {row['ratio']:7.1f}x  "
            f"{row['largest_difference']:10.1e}   {goal}"
        )
    print(f"peak memory, MB, of {', '.join(map(str, metrics_memory.ITEMS))} items")
    for score, row in memory.items():
        print(f"{score:36s} {' '.join(f'{v:9.3f}' for v in row['peak_mb'])}   grows with the power {row['growth']:.2f}")
    failed = missed(rows, memory)
    for line in failed:
        print(f"missed: {line}")
    card = run_card(command="python -m benchmarks.metrics", config=as_dict(config) | {"out": config.out.name})
    for package in ("numba", "tslearn"):
        if importlib.util.find_spec(package):
            card["versions"][package] = importlib.metadata.version(package)
    result: dict[str, Any] = {"plain_dtw": name, "numba": bool(importlib.util.find_spec("numba")), "rows": rows}
    result |= {"memory": {"items": metrics_memory.ITEMS, "scores": memory}, "missed": failed}
    result |= {"load_average": [round(v, 2) for v in os.getloadavg()], "run": card}
    write_json(config.out, result)
    print(json.dumps(result))
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
