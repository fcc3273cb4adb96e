"""How often an interval of 95 % holds the truth where units move in few sessions, beside percentiles of the resamples.

    python -m benchmarks.intervals    # a minute of a core

A simulated world of 300 sessions gives the truth; small studies are drawn from it, and each gets its intervals: of a
system's macro CCC, and of its difference to a weaker one. Writes benchmarks/results/intervals.json and the table
between the marks in docs/metrics.md; the last line is one JSON object.
Shapes: S sessions, A units.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.comparison import macro_ccc, put_between
from dyad.config import as_dict, parse, run_main
from dyad.metrics import agreement, bootstrap
from dyad.metrics.bootstrap import Resampling
from dyad.provenance import run_card, write_json

Array = NDArray[np.float64]
Rates = tuple[float, float, float]
Interval = Callable[[float, Array, Resampling], tuple[float, float]]
ROOT = Path(__file__).resolve().parent.parent
UNITS, FRAMES, SESSIONS = 9, 200, 300
WORLDS: dict[str, Rates] = {
    "every session": (1, 1, 1), "90, 50, 20 % of them": (0.9, 0.5, 0.2), "60, 20, 8 % of them": (0.6, 0.2, 0.08),
}  # fmt: skip
"""In which share of the sessions each third of the units moves."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many studies, of which sizes."""

    sizes: tuple[int, ...] = (6, 11, 20, 24, 40)
    """Sessions of a study."""
    trials: int = 300
    """Studies of each size."""
    resamples: int = 200
    """Behind every interval."""
    results: Path = ROOT / "benchmarks" / "results" / "intervals.json"
    """Results file."""
    report: Path | None = ROOT / "docs" / "metrics.md"
    """Markdown whose part between <!-- intervals:begin --> and <!-- intervals:end --> becomes the table."""


@functools.cache
def world(rates: Rates, seed: int = 1) -> tuple[Array, Array]:
    """Sums [S, A, 8] of two systems; each third of the units moves in its share of the sessions, all tremble."""
    rng, t = np.random.default_rng(seed), np.arange(FRAMES)
    made: tuple[list[Array], list[Array]] = [], []
    for _ in range(SESSIONS):
        moves = rng.random(UNITS) < np.repeat(rates, UNITS // 3)
        smiles = np.exp(-(((t[:, None, None] - rng.integers(0, FRAMES, (UNITS, 3))) / 7) ** 2)).sum(axis=-1).clip(0, 1)
        y = smiles * moves + 0.05 + 0.01 * rng.standard_normal((FRAMES, UNITS))
        stray = 0.2 * np.exp(-(((t[:, None] - rng.integers(0, FRAMES, UNITS)) / 10) ** 2)) + 0.07
        for sums, strength in zip(made, (0.5, 0.35), strict=True):
            share = np.clip(strength + 0.1 * rng.standard_normal(UNITS), 0, 1)
            p = share * smiles * moves + stray + 0.02 * rng.standard_normal((FRAMES, UNITS))
            sums.append(agreement.sums(p.astype(np.float32), y.astype(np.float32), np.full(UNITS, 0.1, np.float32)))
    return np.stack(made[0]), np.stack(made[1])


def ours(value: float, resampled: Array, over: Resampling) -> tuple[float, float]:
    """What the reports print."""
    return over.interval(value, resampled)


def percentile(value: float, resampled: Array, over: Resampling) -> tuple[float, float]:
    """What is usual."""
    del value, over
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)


def covered(
    rates: Rates, sessions: int, interval: Interval = ours, *, gap: bool, trials: int, resamples: int = 200
) -> float:
    """How often the interval of a study of so many sessions holds its world's macro CCC, or the gap of two systems."""
    first, second = world(rates)
    rng, hits = np.random.default_rng(2), 0

    def scored(one: Array, other: Array) -> Array:
        return macro_ccc(one) - macro_ccc(other) if gap else macro_ccc(one)

    truth = scored(first.sum(axis=0), second.sum(axis=0))
    for trial in range(trials):
        chosen = rng.choice(len(first), sessions)
        over = Resampling.of(range(sessions), resamples, trial)
        drawn = (bootstrap.bootstrap(x[chosen], lambda totals: totals, over.counts) for x in (first, second))
        value = float(scored(first[chosen].sum(axis=0), second[chosen].sum(axis=0)))
        low, high = interval(value, scored(*drawn), over)
        hits += bool(low <= truth <= high)
    return hits / trials


def table(shares: dict[str, dict[str, dict[str, float]]], sizes: tuple[int, ...]) -> str:
    """Markdown; percentiles in brackets."""
    lines = [f"| each third of the units moves in | {' | '.join(f'{n} sessions' for n in sizes)} |"]
    lines.append("|---|" + "---|" * len(sizes))
    for name, of in shares.items():
        cells = [f"{of[str(n)]['ours']:.0%} ({of[str(n)]['percentile']:.0%})" for n in sizes]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Draw studies, count, print and write."""
    config = parse(Config, argv, prog="python -m benchmarks.intervals", description=(__doc__ or "").splitlines()[0])
    shares: dict[str, dict[str, dict[str, float]]] = {}
    for what, gap in (("macro CCC", False), ("difference", True)):
        for name, rates in WORLDS.items():
            shares[f"{name}, {what}"] = {
                str(n): {
                    way.__name__: covered(rates, n, way, gap=gap, trials=config.trials, resamples=config.resamples)
                    for way in (ours, percentile)
                }
                for n in config.sizes
            }
    text = table(shares, config.sizes)
    print(text)
    if config.report is not None:
        put_between(config.report, "intervals", f"\n{text}\n")
    files = {k: getattr(config, k).name for k in ("results", "report") if getattr(config, k) is not None}
    card = run_card(command="python -m benchmarks.intervals", config=as_dict(config) | files)
    result = {"trials": config.trials, "units": UNITS, "covered": shares, "run": card}
    write_json(config.results, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_main(main)
