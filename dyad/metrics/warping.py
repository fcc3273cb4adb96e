"""Dynamic time warping: exact distances, and the nearest of several sequences without computing all of them.

A distance is the square root of the least sum of squared frame distances over all warping paths, without a band, in
float64: `tslearn.metrics.dtw`. The straight path bounds it from above; what a bound rules out is not computed, and the
bound falls as nearer neighbours are found. With numba (the extra `metrics`) the inner loop is machine code, without it
numpy's; both give the same digits.
Shapes: T frames, D channels, M neighbours, G groups of channels.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dyad.metrics import warping_kernel
from dyad.metrics.checks import Numbers, require_finite

Array = NDArray[np.float64]
Kernel = Callable[[Array, Array, float], float]
Group = tuple[int, int, float]
"""First channel, end of the channels, weight."""
SLACK = 1 + 1e-9
"""Bounds are loosened by this, so that rounding never rules out the best."""
BLOCK = 16
"""Anti-diagonals whose costs numpy computes at once."""


@functools.cache
def kernel() -> Kernel:
    """The fastest inner loop there is: numba's where it is installed, else numpy's."""
    return warping_kernel.compiled() if importlib.util.find_spec("numba") else squared_distance


def dtw(x: Numbers, y: Numbers) -> float:
    """Distance of two sequences [T, D], whose lengths may differ; 0 when equal, grows with T and D."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not (len(x) and len(y)):
        raise ValueError(
            f"two sequences [T, D] with the same channels and at least one frame are needed; got {list(x.shape)} and "
            f"{list(y.shape)}; give one channel as x[:, None]"
        )
    require_finite(x, session="the first sequence", what="motion")
    require_finite(y, session="the second sequence", what="motion")
    return float(np.sqrt(kernel()(_padded(x), _padded(y).T.copy(), np.inf)))


def _padded(x: Numbers) -> Array:
    """Float64 [T, D] with zero channels up to a multiple of four."""
    out = np.zeros((x.shape[0], -(-x.shape[1] // 4) * 4))
    out[:, : x.shape[1]] = x
    return out


def group_distances(x: Numbers, y: Numbers, groups: Sequence[Group]) -> Array:
    """Unweighted distance of every group of channels of `x`, `y` [T, D], [G]."""
    return np.array([dtw(x[:, first:end], y[:, first:end]) for first, end, _ in groups])


def nearest(pred: Numbers, neighbours: Numbers, groups: Sequence[Group]) -> Array:
    """Least weighted sum of group distances to `neighbours` [M, T, D], of each of `pred` [K, T, D]; [K]."""
    theirs = [[_padded(y[:, first:end]).T.copy() for first, end, _ in groups] for y in neighbours]
    wide = neighbours.astype(np.float64)
    return np.array([_nearest(x, wide, theirs, groups) for x in pred])


def _nearest(x: Numbers, neighbours: Array, theirs: list[list[Array]], groups: Sequence[Group]) -> float:
    """The nearest of one prediction [T, D]: likely neighbours and cheap groups come first."""
    straight = _straight(x, neighbours, groups)
    totals = straight @ np.array([weight for _, _, weight in groups])
    mine = [_padded(x[:, first:end]) for first, end, _ in groups]
    cheap_first = sorted(range(len(groups)), key=lambda g: mine[g].shape[1])
    best = np.inf
    bound = float(totals.min()) * SLACK
    for j in np.argsort(totals, kind="stable"):
        so_far = 0.0
        for g in cheap_first:
            left = (bound - so_far) / groups[g][2]
            if left < 0:
                so_far = np.inf
                break
            so_far += groups[g][2] * float(np.sqrt(kernel()(mine[g], theirs[j][g], left * left * SLACK)))
        best = min(best, so_far)
        bound = min(bound, so_far * SLACK)
    return best


def _straight(x: Numbers, neighbours: Array, groups: Sequence[Group]) -> Array:
    """Distances along the straight path [M, G], which no warped path exceeds."""
    gaps = neighbours - x
    squares = np.einsum("mtd,mtd->md", gaps, gaps)
    return np.sqrt(np.stack([squares[:, first:end].sum(axis=1) for first, end, _ in groups], axis=1))


def squared_distance(x: Array, y: Array, limit: float) -> float:
    """What `warping_kernel.squared_distance` gives, with numpy's vectors instead of machine code.

    It sweeps anti-diagonals, whose cells do not depend on one another.
    """
    n, m = x.shape[0], y.shape[1]
    used = x.any(axis=0) | y.any(axis=1)
    # Frames of y beyond its ends are infinitely far: cells outside the matrix rule themselves out.
    ends = np.full((int(used.sum()), n - 1), np.inf)
    padded = np.concatenate([ends, y[used, ::-1], ends], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, n, axis=1)[:, ::-1]
    # Path costs two diagonals ago, on the last one, on this one; cell (i, k - i) of diagonal k lies at i + 1.
    older, old, new = (np.full(n + 1, np.inf) for _ in range(3))
    older[0] = 0.0
    for first in range(0, n + m - 1, BLOCK):
        if min(older.min(), old.min()) > limit:
            return np.inf
        start, stop = max(first - m + 1, 0), min(first + BLOCK, n)
        for cost in _costs(x[start:stop, used], windows[:, first : first + BLOCK, start:stop]):
            cells = new[start + 1 : stop + 1]
            np.minimum(old[start + 1 : stop + 1], old[start:stop], out=cells)
            np.minimum(cells, older[start:stop], out=cells)
            cells += cost
            new[start] = older[0] = np.inf
            older, old, new = old, new, older
    return float(old[n]) if old[n] <= limit else np.inf


def _costs(x: Array, windows: Array) -> Array:
    """Squared frame distances of some anti-diagonals, [BLOCK, n]; channels are added in order."""
    total = np.zeros(windows.shape[1:])
    gap = np.empty_like(total)
    for mine, theirs in zip(x.T, windows, strict=True):
        np.subtract(theirs, mine, out=gap)
        gap *= gap
        total += gap
    return total
