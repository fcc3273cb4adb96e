"""What INT8 costs beside a float student trained equally long: macro F1 and macro CCC of held-out sessions.

    python -m benchmarks.int8_cost --dataset out/dyads --int8 out/a/0/predictions … --float32 out/b/0/predictions …

Stores of one seed stand at the same place of both lists. Thresholds of F1 are tuned per unit on the other half of the
sessions; intervals are over sessions, paired, averaged over seeds. Shapes: S sessions, A units.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.comparison import macro_ccc
from dyad.action_units import SEED17
from dyad.config import as_dict, parse, run_main
from dyad.layouts import processed, recordings
from dyad.metrics import agreement, bootstrap
from dyad.metrics.classification import best_threshold
from dyad.predictions import PredictionStore
from dyad.provenance import run_card, write_json
from dyad.session import Session

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Held-out sessions, and what two kinds of engine say of them."""

    dataset: Path
    """Folder that holds processed/val."""
    int8: tuple[Path, ...]
    """Prediction stores of INT8 engines, one a seed."""
    float32: tuple[Path, ...]
    """Prediction stores of their float controls, in the same order."""
    horizon: int = 4
    """Look-ahead, frames."""
    resamples: int = 1000
    """Of sessions."""
    out: Path = Path("benchmarks/results/int8_cost.json")
    """Results file."""

    def __post_init__(self) -> None:
        """Refuse what cannot be paired."""
        if len(self.int8) != len(self.float32):
            raise ValueError(f"one float store for every INT8 store; got {len(self.int8)} and {len(self.float32)}")


def counts_of(sessions: list[Session], store: PredictionStore, horizon: int) -> tuple[Array, Array]:
    """Hits, false alarms and misses [S, A, 3] at thresholds tuned on the other half, and agreement sums [S, A, 8]."""
    column = store.horizons.index(horizon)
    said, true, sums = [], [], []
    for session in sessions:
        stored = store.read(session.id)
        n = min(len(stored.prob), session.n_frames) - horizon
        said.append(stored.act_prob[:n, column])
        true.append(session.act[horizon : horizon + n])
        mean = np.zeros(session.prob.shape[1], np.float32)
        sums.append(agreement.sums(stored.prob[:n, column], session.prob[horizon : horizon + n], mean))
    found = np.zeros((len(sessions), len(SEED17.units), 3))
    for half in range(2):
        tuned = [np.concatenate(x[1 - half :: 2]) for x in (said, true)]
        for a in range(len(SEED17.units)):
            threshold = best_threshold(tuned[0][:, a], tuned[1][:, a])
            for s in range(half, len(sessions), 2):
                yes, active = said[s][:, a] >= threshold, true[s][:, a] > 0.5
                found[s, a] = (yes & active).sum(), (yes & ~active).sum(), (~yes & active).sum()
    return found, np.array(sums)


def macro_f1(counts: Array) -> Array:
    """Mean over the units that are active somewhere; [..., A, 3] → [...]."""
    hits, alarms, misses = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        scores = np.where(hits + misses > 0, 2 * hits / (2 * hits + alarms + misses), np.nan)
    return np.nanmean(scores, axis=-1)


def main(argv: list[str] | None = None) -> int:
    """Count, resample, print, write."""
    config = parse(Config, argv, prog="python -m benchmarks.int8_cost", description=(__doc__ or "").split("\n")[0])
    sessions = processed.load(config.dataset, "val", au_names=SEED17.units)
    over = bootstrap.Resampling.of(recordings.of(config.dataset, sessions), config.resamples)
    points: dict[str, list[list[float]]] = {"macro F1": [], "macro CCC": []}
    gaps: dict[str, list[Array]] = {"macro F1": [], "macro CCC": []}
    for whole, plain in zip(config.int8, config.float32, strict=True):
        both = [
            counts_of(sessions, PredictionStore.open(p, au_names=SEED17.units), config.horizon) for p in (whole, plain)
        ]
        for i, (name, score) in enumerate((("macro F1", macro_f1), ("macro CCC", macro_ccc))):
            points[name].append([float(score(x[i].sum(axis=0))) for x in both])
            resampled = [bootstrap.bootstrap(x[i], score, over.counts) for x in both]
            gaps[name].append(resampled[0] - resampled[1])
    result: dict[str, object] = {}
    for name, pairs in points.items():
        int8, plain = np.mean(pairs, axis=0)
        low, high = over.interval(float(int8 - plain), np.mean(gaps[name], axis=0))
        result[name] = {
            "int8": round(float(int8), 4), "float32": round(float(plain), 4),
            "difference": [round(float(x), 4) for x in (int8 - plain, low, high)],
        }  # fmt: skip
        print(f"{name}: INT8 {int8:.4f}, float {plain:.4f}, difference {int8 - plain:+.4f} [{low:+.4f}, {high:+.4f}]")
    result["run"] = run_card(command="benchmarks/int8_cost.py", config=as_dict(config))
    write_json(config.out, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_main(main)
