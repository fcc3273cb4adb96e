"""Time-lagged cross-correlation of a reaction with the speaker: the reference's offset, and what it should have been.

The reference takes the mean over channels of Pearson's r at every lag, in float32, and the first maximum of that
curve. A channel that never moves makes the whole curve NaN, NaN wins the maximum, and the offset is that of the first
lag: 49. `Synchrony` holds both this number and the lag over the channels that do move. Such a channel may be still in
what two curves share at some lag (one smile near the end of a clip): there it agrees in nothing, and counts as 0. Lags
beyond a third of the clip are not looked for: what little is shared there agrees by chance.
All lags of all predictions are one matrix product per channel. Where two lags tie within rounding, and only there, the
reference's own arithmetic decides.
Shapes: N items, K predictions, T frames, D channels, L = 2 · max_lag + 1 lags from -max_lag to max_lag; lag > 0: the
prediction follows the speaker.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.metrics.checks import finite_item, finite_sequences, require_reactions

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
TIE = 1e-6
"""Lags this close to the best are decided by the reference's arithmetic."""
POOR = 1e-7
"""A window with less than this share of its channel's variance is correlated directly, not from sums."""


@dataclass(frozen=True)
class Synchrony:
    """When each of K predictions of N items follows its speaker."""

    offset: NDArray[np.int64]
    """The reference's: max_lag - argmax, [N, K]; the lag with its sign turned, and max_lag where the curve is NaN."""
    lag_ms: Array
    """Best lag over the channels that move, [N, K]; > 0: later than the speaker, NaN: no channel moves in both."""
    peak: Array
    """Correlation at that lag, [N, K]."""
    moving: NDArray[np.int64]
    """How many channels move in both, [N, K]."""
    undefined: Array
    """Share of channels that are still at some lag, [N, K]; one is enough to send `offset` to its end."""


def synchrony(
    pred: NDArray[np.floating[Any]], speaker: NDArray[np.floating[Any]], *, fps: float = 25.0, seconds: float = 2.0
) -> Synchrony:
    """Lags of `pred` [N, K, T, D] behind `speaker` [N, T, D]; the challenge computes with 25 frames per second."""
    require_reactions(pred, speaker, "speaker")
    speaker = finite_sequences(speaker, "speaker")
    max_lag = int(seconds * fps - 1)
    rows = [_item(finite_item(pred, i), one, max_lag) for i, one in enumerate(speaker)]
    offset, lag, peak, moving, undefined = (np.array(column) for column in zip(*rows, strict=True))
    return Synchrony(offset, lag * 1000 / fps, peak, moving, undefined)


def _item(x: Floats, y: Floats, max_lag: int) -> tuple[NDArray[np.int64], Array, Array, NDArray[np.int64], Array]:
    """Reference offset, NaN-safe lag in frames, its correlation, channels that move and share still, each [K]."""
    r = correlations(x, y, max_lag)
    curve = r.mean(axis=0)
    offset = np.array([max_lag - _first_best(curve[k], x[k], y, max_lag) for k in range(len(x))])
    kept, moving = over_moving(r, x, y)
    known = ~np.isnan(kept)
    best = np.where(known, kept, -np.inf).argmax(axis=-1)
    peak = kept[np.arange(len(x)), best]
    still = 1 - np.isfinite(r).all(axis=-1).mean(axis=0)
    return offset, np.where(moving > 0, best - float(max_lag), np.nan), peak, moving, still


def over_moving(r: Array, x: Floats, y: Floats) -> tuple[Array, NDArray[np.int64]]:
    """Mean [K, L] of correlations `r` [D, K, L] over the channels that move in both, and how many these are, [K].

    0 where a moving channel is still in what is shared; NaN beyond a third of the frames, and where no channel moves.
    """
    moves = ((x != x[:, :1]).any(axis=1) & (y != y[:1]).any(axis=0)).T
    count = moves.sum(axis=0)
    mean = np.where(moves[..., None], np.nan_to_num(r), 0).sum(axis=0) / np.maximum(count, 1)[:, None]
    lag = np.arange(r.shape[-1]) - r.shape[-1] // 2
    return np.where((np.abs(lag) <= len(y) // 3) & (count > 0)[:, None], mean, np.nan), count


def correlations(x: Floats, y: Floats, max_lag: int) -> Array:
    """Pearson's r [D, K, L] of `x` [K, T, D] with `y` [T, D] at every lag; NaN where one of the two never moves."""
    a = np.ascontiguousarray(x.transpose(2, 0, 1), dtype=np.float64)
    b = np.ascontiguousarray(y.T, dtype=np.float64)[:, None]
    still = _still(a, max_lag) | _still(b, max_lag)[..., ::-1]
    a -= a.mean(axis=-1, keepdims=True)
    b -= b.mean(axis=-1, keepdims=True)
    frames = np.maximum(x.shape[1] - np.abs(np.arange(-max_lag, max_lag + 1)), 1)
    (sa, saa, poor_a), (sb, sbb, poor_b) = _window_sums(a, max_lag), _window_sums(b, max_lag)
    sb, sbb, poor_b = sb[..., ::-1], sbb[..., ::-1], poor_b[..., ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        r = (_products(a, b[:, 0], max_lag) - sa * sb / frames) / np.sqrt(saa * sbb)
    np.clip(r, -1, 1, out=r)
    r[still] = np.nan
    for d, k, at in np.argwhere((poor_a | poor_b) & ~still):
        r[d, k, at] = _pearson(x[k, :, d], y[:, d], at - max_lag)
    return r


def _products(a: Array, b: Array, max_lag: int) -> Array:
    """Σ a[t + lag] · b[t] over the frames where both are, [D, K, L]."""
    channels, _, frames = a.shape
    padded = np.pad(b, ((0, 0), (max_lag, max_lag)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, frames, axis=-1)[:, ::-1]
    shifted, out = np.empty((2 * max_lag + 1, frames)), np.empty((*a.shape[:2], 2 * max_lag + 1))
    for d in range(channels):
        np.copyto(shifted, windows[d])
        np.matmul(a[d], shifted.T, out=out[d])
    return out


def _window_sums(a: Array, max_lag: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Of the windows a[max(lag, 0) : T + min(lag, 0)]: Σa, Σ(a - window's mean)², and is that sum's precision poor?"""
    frames, edge = a.shape[-1], min(max_lag, a.shape[-1])
    left = np.maximum(frames - np.abs(np.arange(-max_lag, max_lag + 1)), 1)
    sums = []
    for power in (a, a * a):
        total = power.sum(axis=-1, keepdims=True)
        head = np.cumsum(power[..., :edge], axis=-1)
        tail = np.cumsum(power[..., ::-1][..., :edge], axis=-1)
        gone = [_held(tail, max_lag)[..., ::-1], np.zeros_like(total), _held(head, max_lag)]
        sums.append(total - np.concatenate(gone, axis=-1))
    one, two = sums
    squares = np.maximum(two - one * one / left, 0)
    return one, squares, squares < POOR * (a * a).sum(axis=-1, keepdims=True)


def _held(values: Array, length: int) -> Array:
    """The last value repeated up to `length`."""
    return np.pad(values, ((0, 0), (0, 0), (0, length - values.shape[-1])), mode="edge")


def _still(a: Array, max_lag: int) -> NDArray[np.bool_]:
    """Are all values of the window the same, or is there but one? [D, K, L]"""
    frames = a.shape[-1]
    lag = np.arange(-max_lag, max_lag + 1)
    first = _run(a)[..., None]
    last = _run(a[..., ::-1])[..., None]
    left = frames - np.abs(lag)
    return np.where(lag > 0, last, first) >= left


def _run(a: Array) -> NDArray[np.int64]:
    """How many values from the start are equal to the first, [D, K]."""
    other = a != a[..., :1]
    return np.where(other.any(axis=-1), other.argmax(axis=-1), a.shape[-1])


def _pearson(x: Floats, y: Floats, lag: int) -> float:
    """Pearson's r at one lag, in the reference's arithmetic."""
    a, b = (x[lag:], y[: len(y) - lag]) if lag >= 0 else (x[:lag], y[-lag:])
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.corrcoef(a, b)[0, 1])


def _first_best(curve: Array, x: Floats, y: Floats, max_lag: int) -> int:
    """Index that the reference's argmax gives: the first NaN, else the first maximum in float32."""
    if np.isnan(curve).any():
        return int(np.isnan(curve).argmax())
    near = np.flatnonzero(curve >= curve.max() - TIE)
    if len(near) == 1:
        return int(near[0])
    exact = [float32_mean([_pearson(x[:, d], y[:, d], at - max_lag) for d in range(y.shape[1])]) for at in near]
    return int(near[int(np.argmax(exact))])


def float32_mean(values: list[float]) -> np.float32:
    """Mean in float32 with the additions in the order of torch's eight-lane sum, whose rounding decides ties."""
    x = np.array(values, np.float32)
    if len(x) < 8:
        return np.float32(_lanes(x[:, None])[0] / np.float32(len(x)))
    whole = len(x) // 8 * 8
    total = np.float32(0)
    for value in (*x[whole:], *_lanes(x[:whole].reshape(-1, 8))):
        total += value
    return np.float32(total / np.float32(len(x)))


def _lanes(rows: Floats) -> Floats:
    """Sum over the first axis, four accumulators at a time."""
    whole = len(rows) // 4 * 4
    sums = np.zeros((4, rows.shape[1]), np.float32)
    for four in rows[:whole].reshape(-1, 4, rows.shape[1]):
        sums += four
    for row in rows[whole:]:
        sums[0] += row
    return sums[0] + sums[1] + sums[2] + sums[3]
