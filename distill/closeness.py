"""REACT scores item by item, each at its own length: clips of MARS last from two seconds to many minutes.

Items of one length get exactly what `dyad.metrics.react` gives them per prediction. Of two sequences of different
length the shorter one's frames are compared; its warped distance is scaled to the item's own length, for distances grow
with √T, and the shortest neighbour would be the nearest. NaN where an item has no score.
Shapes: S items, K predictions, T frames (of each item its own), A units.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS
from dyad.metrics import concordance, react, warping
from dyad.metrics.synchrony import synchrony

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
SYNCHRONY_S = 2.0
"""How far FRSyn looks, as the challenge does."""
SHORTEST = 2 * int(SYNCHRONY_S * FPS - 1)
"""Frames that an item needs for it: with fewer, hardly anything is shared at the outer lags, and they win."""


def spreads(pred: Sequence[Floats]) -> dict[str, Array]:
    """FRDiv and FRVar of every item [K, T, A]; each [S]."""
    return {
        "frdiv": np.array([react.frdiv(x[None]) for x in pred]),
        "frvar": np.array([react.frvar(x[None]) for x in pred]),
    }


def frdvs(pred: Sequence[Floats]) -> float:
    """Mean squared difference of the same prediction for two items, over the frames that both have."""
    if len({len(x[0]) for x in pred}) == 1:
        return react.frdvs(np.stack(pred))
    longest_first = sorted(pred, key=lambda x: -x.shape[1])
    once, twice, total = np.zeros(longest_first[0].shape), np.zeros(longest_first[0].shape), 0.0
    for before, item in enumerate(longest_first):
        x, n = item.astype(np.float64), item.shape[1]
        total += float((twice[:, :n] - 2 * x * once[:, :n] + before * x * x).mean())
        once[:, :n] += x
        twice[:, :n] += x * x
    return total / (len(pred) * (len(pred) - 1) / 2)


def appropriateness(
    pred: Sequence[Floats], target: Sequence[Floats], rows: Sequence[NDArray[np.intp]]
) -> dict[str, Array]:
    """FRCorr with still units as 0 and without them, and FRDist, of items [K, T, A] to the best of `rows`; each [S]."""
    made = [_item(x, len(y), [target[j] for j in row]) for x, y, row in zip(pred, target, rows, strict=True)]
    return {name: np.array([one[name] for one in made]) for name in ("frcorr", "frcorr_moving", "frdist")}


def _item(pred: Floats, frames: int, neighbours: Sequence[Floats]) -> dict[str, float]:
    units = pred.shape[-1]
    correlated, moving, distance = np.full((3, len(pred)), np.nan)
    shared = np.array([min(frames, len(y)) for y in neighbours])
    for n in np.unique(shared):
        theirs = np.stack([y[:n] for y, m in zip(neighbours, shared, strict=True) if m == n])
        pair = concordance.moments(pred[:, :n]), concordance.moments(theirs)
        correlated = np.fmax(correlated, concordance.mean_concordance(*pair).max(axis=1))
        moving = np.fmax(moving, np.fmax.reduce(concordance.mean_concordance(*pair, skip_constant=True), axis=1))
        apart = warping.nearest(pred[:, :n], theirs, ((0, units, 1 / units),)) * np.sqrt(frames / n)
        distance = np.fmin(distance, apart)
    known = moving[~np.isnan(moving)]
    return {
        "frcorr": float(correlated.mean()),
        "frcorr_moving": float(known.mean()) if len(known) else float("nan"),
        "frdist": float(distance.mean()),
    }


def followed(pred: Sequence[Floats], speaker: Sequence[Floats]) -> dict[str, Array]:
    """FRSyn of items [K, T, A] with their speakers [T, A], and the share of units that are still; each [S]."""
    offset, undefined = np.full((2, len(pred)), np.nan)
    for i, (x, y) in enumerate(zip(pred, speaker, strict=True)):
        if x.shape[1] >= SHORTEST:
            found = synchrony(x[None], y[None], fps=FPS, seconds=SYNCHRONY_S)
            offset[i], undefined[i] = np.abs(found.offset).mean(), found.undefined.mean()
    return {"frsyn": offset, "undefined": undefined}
