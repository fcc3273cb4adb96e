"""The scores of the REACT challenge: by default the 2024 reference's arithmetic, artefacts and all.

`frcorr` and `frdist` are sums over the K predictions, not means; a channel that never moves counts as CCC 0; `frsyn`
lets NaN win. Published tables hold these numbers, so they are the defaults; what one would rather know is one argument
away: `per_prediction`, `skip_constant`, and `synchrony.synchrony` for signed lags. docs/metrics.md says what may be
compared with what.
Memory grows with N, never with N²: neighbours are visited item by item, and spreads come from sums.
Shapes: pred [N, K, T, D]; target, speaker [N, T, D]; neighbours [N, N], 1 where reaction j is appropriate for item i.
N items, K predictions (10), T frames (750), D = 25 channels: 15 action units, valence, arousal, 8 expressions.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.metrics import concordance, spread, warping
from dyad.metrics.checks import (
    REACT_CHANNELS,
    Numbers,
    finite_item,
    finite_sequences,
    neighbours_of,
    require_reactions,
)
from dyad.metrics.synchrony import synchrony

Array = NDArray[np.float64]
Matrix = NDArray[Any]
GROUPS: tuple[warping.Group, ...] = ((0, 15, 1 / 15), (15, 17, 1.0), (17, 25, 1 / 8))
"""Channels whose distances `frdist` adds, and the weight of each."""
BLOCK = 64
"""Neighbours that are compared at once."""


def frcorr(
    pred: Numbers, target: Numbers, neighbours: Matrix, *, per_prediction: bool = False, skip_constant: bool = False
) -> float:
    """Correlation with the best appropriate reaction; more is better, at most K (1 with `per_prediction`).

    CCC, averaged over channels, best over neighbours, summed (or averaged) over predictions, averaged over items.
    `skip_constant` leaves channels out that never move instead of counting them as 0.
    """
    return _over_predictions(best_concordance(pred, target, neighbours, skip_constant=skip_constant), per_prediction)


def best_concordance(pred: Numbers, target: Numbers, neighbours: Matrix, *, skip_constant: bool = False) -> Array:
    """CCC of every prediction with its best neighbour, [N, K]; NaN where `skip_constant` leaves no channel."""
    require_reactions(pred, target, "target")
    rows, target = neighbours_of(neighbours, len(pred)), finite_sequences(target, "target")
    best = np.full(pred.shape[:2], np.nan)
    for i, row in enumerate(rows):
        mine = concordance.moments(finite_item(pred, i))
        for start in range(0, len(row), BLOCK):
            theirs = concordance.moments(target[row[start : start + BLOCK]])
            values = concordance.mean_concordance(mine, theirs, skip_constant)
            best[i] = np.fmax(best[i], np.fmax.reduce(values, axis=1))
    return best


def frdist(
    pred: Numbers,
    target: Numbers,
    neighbours: Matrix,
    *,
    groups: Sequence[warping.Group] = GROUPS,
    per_prediction: bool = False,
) -> float:
    """Warped distance to the nearest appropriate reaction; less is better, 0 for an appropriate reaction itself.

    Dynamic time warping per group of channels, weighted, least over neighbours, summed (or averaged) over predictions,
    averaged over items. Grows with √T: sequences of other lengths make another scale.
    """
    return _over_predictions(nearest_distance(pred, target, neighbours, groups=groups), per_prediction)


def nearest_distance(
    pred: Numbers, target: Numbers, neighbours: Matrix, *, groups: Sequence[warping.Group] = GROUPS
) -> Array:
    """Distance of every prediction to its nearest neighbour, [N, K]."""
    require_reactions(pred, target, "target")
    _require_channels(pred, groups)
    rows, target = neighbours_of(neighbours, len(pred)), finite_sequences(target, "target")
    return np.stack([warping.nearest(finite_item(pred, i), target[row], groups) for i, row in enumerate(rows)])


def _require_channels(pred: Numbers, groups: Sequence[warping.Group]) -> None:
    """Raise ValueError unless every channel is in one group, and none in two."""
    edges = [0, *(end for _, end, _ in groups)]
    if any(first != before or end <= first for before, (first, end, _) in zip(edges, groups, strict=False)):
        raise ValueError(
            f"groups (first, end, weight) that follow one another from channel 0 on, without a gap, are needed; got "
            f"{tuple(groups)}; a channel that shall not count is left out of pred and target"
        )
    if pred.shape[-1] != edges[-1]:
        raise ValueError(
            f"pred: {edges[-1]} channels are needed for these groups, {', '.join(REACT_CHANNELS[:2])}, …; "
            f"got {pred.shape[-1]}; give groups=((first, end, weight), …) for other channels"
        )


def _over_predictions(values: Array, per_prediction: bool) -> float:
    """[N, K] → mean over items of the sum over predictions, or the mean over all that is defined."""
    if per_prediction:
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")
    return float(values.mean(axis=0).sum())


def frdiv(pred: Numbers) -> float:
    """How much the K predictions of one item differ; more is more diverse, 0 when they are equal or K = 1.

    Mean squared difference of two different predictions: 1/6 for uniform noise.
    """
    k = pred.shape[1]
    if k == 1:
        return 0.0
    gaps = [spread.squared_gaps(x) for x in _items(pred)]
    return float(np.mean(gaps)) / (k * (k - 1) * _cells(pred))


def frvar(pred: Numbers) -> float:
    """How much a prediction moves: mean temporal variance (unbiased); 1/12 for uniform noise, NaN for one frame."""
    if pred.shape[2] == 1:
        return float("nan")
    return float(np.mean([x.astype(np.float64).var(axis=1, ddof=1).mean() for x in _items(pred)]))


def frdvs(pred: Numbers) -> float:
    """How much the reactions to different speakers differ; 0: the speaker does not matter, NaN for one item.

    Mean squared difference of the same prediction for two different items: 1/6 for uniform noise.
    """
    n, k = pred.shape[:2]
    if n == 1:
        return float("nan")
    if n <= spread.DIRECT:
        items = np.stack(list(_items(pred)), axis=1)
        gaps = sum(spread.squared_gaps(x) for x in items)
    else:
        gaps = spread.squared_gaps_of_many(lambda: _items(pred), n)
    return gaps / (n * (n - 1) * k * _cells(pred))


def _items(pred: Numbers) -> Iterator[NDArray[np.float32]]:
    """Predictions [K, T, D] of one item after the other."""
    if pred.ndim != 4 or not pred.size:
        raise ValueError(f"pred [N, K, T, D] is needed; got {list(pred.shape)}; give one prediction as pred[:, None]")
    for i in range(len(pred)):
        yield finite_item(pred, i)


def _cells(pred: Numbers) -> int:
    return pred.shape[2] * pred.shape[3]


def frsyn(
    pred: Numbers, speaker: Numbers, *, fps: float = 25.0, seconds: float = 2.0, first_prediction: bool = False
) -> float:
    """Mean |lag| of the best correlation with the speaker, in frames; the challenge calls less better.

    Between 0 (mimicry at once) and seconds · fps - 1, which is also what an item gets in which any channel never moves:
    read it beside `synchrony`, which knows both cases apart. `first_prediction` gives the number of the reference's
    parallel variant, which scores the first of the K predictions only.
    """
    offset = np.abs(synchrony(pred[:, :1] if first_prediction else pred, speaker, fps=fps, seconds=seconds).offset)
    return float(np.float32(offset.sum()) / np.float32(offset.size))
