"""How long after the speaker the listener moves, and whether that is more than chance.

What is compared are onsets: the rises of the speaker's units (or starts and ends of speech) with the rises of the
listener's. For every cue and unit the correlation at every lag is pooled over the sessions, about each session's own
mean; its peak is the lag. Chance is measured, not assumed: speakers are dealt to other sessions' listeners
(surrogates), which keeps how each of them moves and destroys only who they moved with. A lag is called real when its
peak, in units of the pair's own chance, exceeds what the best of *all* pairs and lags reached in 95 % of the deals: a
single false find in twenty datasets, however many pairs are tried; from too few sessions nothing is told (`deals`). An
interval of the lag comes from drawing sessions again (bootstrap).
All lags of all pairs are one product per frequency: sessions are transformed once, deals only pair them differently.
Shapes: N sessions, T frames, C cues, U units, L lags, F frequencies, B bootstrap draws, R real pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS
from dyad.stats.deals import LEVEL, deals, too_few

Array = NDArray[np.float64]
Curves = NDArray[np.floating]
REACH = 3
"""Half the frames over which a rise is taken: 0.2 s, shorter than a movement's attack, longer than its noise."""
FASTEST_HZ = 7.5
"""Faces move no faster; what is above is noise."""


@dataclass(frozen=True)
class Lag:
    """How one unit of the listener follows one cue of the speaker."""

    cue: str
    unit: str
    lag_ms: float
    """Peak, interpolated between frames; > 0: the listener is later."""
    low_ms: float
    high_ms: float
    """Interval that holds 95 % of the bootstrap's peaks; NaN where the lag is not real."""
    correlation: float
    """At the peak; negative: the unit falls."""
    chance: float
    """Share of the deals in which any pair's best peak stood out as much."""
    real: bool


@dataclass(frozen=True)
class Lags:
    """All pairs, the strongest first, and their curves [C, U, L] at `lags_frames` [L]."""

    cues: tuple[str, ...]
    units: tuple[str, ...]
    lags_frames: NDArray[np.int64]
    curves: Array
    found: tuple[Lag, ...]
    sessions: int
    surrogates: int
    """Deals that chance is known from."""

    def real(self) -> list[Lag]:
        """The pairs whose lag is more than chance."""
        return [lag for lag in self.found if lag.real]

    def strongest(self) -> list[Lag]:
        """Of every unit of the listener that really follows something, the cue that it follows most."""
        first: dict[str, Lag] = {}
        for lag in self.real():
            first.setdefault(lag.unit, lag)
        return list(first.values())


def rises(values: Curves) -> Array:
    """Rise [T, D] over the 0.2 s around each frame, falls as 0: symmetrical, so that no time is added."""
    wide = values.astype(np.float64)
    out = np.full(wide.shape, np.nan)
    if len(wide) > 2 * REACH:
        out[REACH:-REACH] = np.maximum(wide[2 * REACH :] - wide[: -2 * REACH], 0)
    return out


def measure(
    cues: Sequence[Curves],
    units: Sequence[Curves],
    cue_names: Sequence[str],
    unit_names: Sequence[str],
    *,
    max_lag_s: float = 3.0,
    lead_s: float = 1.0,
    surrogates: int = 200,
    seed: int = 0,
    clips: Sequence[str] | None = None,
) -> Lags:
    """Lags of `units` [T, U] behind `cues` [T, C], one array of each per session; NaN is unknown and left out.

    `clips` says which sessions are of one recording (both directions of a clip): they are not dealt to one another,
    or speakers would meet themselves as listeners. Raises ValueError for too few sessions to know chance from.
    """
    if why := too_few(len(cues), clips):
        raise ValueError(why)
    lags = np.arange(-round(lead_s * FPS), round(max_lag_s * FPS) + 1)
    pool = _Pool(cues, units, lags)
    curves = pool.curves(np.arange(pool.sessions))
    rng = np.random.default_rng(seed)
    # The true pairing is one of the deals, so far as chance can tell: it counts among them.
    squares = np.square(curves).mean(axis=-1)
    peaks = []
    for deal in deals(pool.sessions, surrogates, rng, clips):
        by_chance = pool.curves(deal)
        squares += np.square(by_chance).mean(axis=-1)
        peaks.append(np.abs(by_chance).max(axis=-1))
    spread = np.sqrt(squares / (len(peaks) + 1))
    varies = spread > 1e-9
    scale = np.where(varies, spread, 1)
    best_of_all = np.sort([float((np.where(varies, p / scale, 0)).max()) for p in peaks])
    stands_out = np.where(varies, np.abs(curves).max(axis=-1) / scale, 0)
    found: list[Lag] = []
    for c, u in ((int(c), int(u)) for c, u in np.argwhere(varies)):
        chance = (int((best_of_all >= stands_out[c, u]).sum()) + 1) / (len(peaks) + 1)
        low, high = pool.interval(c, u, rng) if chance <= LEVEL else (float("nan"), float("nan"))
        found.append(
            Lag(
                cue=cue_names[c],
                unit=unit_names[u],
                lag_ms=pool.ms(peak(curves[c, u])),
                low_ms=low,
                high_ms=high,
                correlation=float(curves[c, u, int(np.abs(curves[c, u]).argmax())]),
                chance=chance,
                real=chance <= LEVEL,
            )
        )
    found.sort(key=lambda f: (not f.real, -abs(f.correlation)))
    return Lags(tuple(cue_names), tuple(unit_names), lags, curves, tuple(found), pool.sessions, len(peaks))


def peak(curve: Array) -> float:
    """Place of the largest magnitude, by a parabola through it and its neighbours."""
    size = np.abs(curve)
    at = int(size.argmax())
    if not 0 < at < len(size) - 1:
        return float(at)
    left, top, right = size[at - 1 : at + 2]
    bend = left - 2 * top + right
    return at + (0.5 * (left - right) / bend if bend < 0 else 0.0)


class _Pool:
    """The sessions' spectra, and the pooled correlations of any pairing of them."""

    def __init__(self, cues: Sequence[Curves], units: Sequence[Curves], lags: NDArray[np.int64]) -> None:
        self.lags, self.sessions = lags, len(cues)
        frames = [min(len(c), len(u)) for c, u in zip(cues, units, strict=True)]
        self._frames = np.array(frames)
        self._size = 1 << int(max(frames) + int(np.abs(lags).max())).bit_length()
        kept = int(self._size * FASTEST_HZ / FPS) + 1
        x = [_centred(c[:n]) for c, n in zip(cues, frames, strict=True)]
        y = [_centred(u[:n]) for u, n in zip(units, frames, strict=True)]
        self._x, self._y = (self._spectra(side, kept) for side in (x, y))
        total = self._frames.sum()
        self.overlap = np.maximum(np.maximum(self._frames[:, None] - np.abs(lags), 0).sum(axis=0) / total, 1e-9)

    def _spectra(self, series: Sequence[Array], kept: int) -> NDArray[np.complex64]:
        """[F, N, D] of unit power over all sessions; a series that never moves stays 0."""
        out = np.empty((kept, len(series), series[0].shape[1]), np.complex64)
        for i, one in enumerate(series):
            out[:, i] = np.fft.rfft(one, self._size, axis=0)[:kept]
        power = np.sqrt(2 * (np.abs(out) ** 2).sum(axis=(0, 1), dtype=np.float64) / self._size)
        out /= np.where(power > 1e-6, power, np.inf).astype(np.float32)
        return out

    def curves(self, order: NDArray[np.intp]) -> Array:
        """Correlation [C, U, L] of every session's cues with the units of session `order`.

        Sessions of other lengths overlap less: their chance is scaled to that of full overlap.
        """
        cross = np.matmul(self._x.conj().transpose(0, 2, 1), self._y[:, order])
        shared = np.minimum(self._frames, self._frames[order]).sum() / self._frames.sum()
        return self._back(cross.transpose(1, 2, 0)) / (self.overlap * np.sqrt(shared))

    def interval(self, c: int, u: int, rng: np.random.Generator, draws: int = 200) -> tuple[float, float]:
        """Milliseconds between which 95 % of the peaks lie when sessions are drawn again."""
        own = self._back((self._x[:, :, c].conj() * self._y[:, :, u]).T)
        weights = rng.multinomial(self.sessions, np.full(self.sessions, 1 / self.sessions), draws)
        places = [peak(row) for row in weights @ own / self.overlap]
        low, high = (self.ms(float(q)) for q in np.quantile(places, (0.025, 0.975)))
        return low, high

    def _back(self, cross: NDArray[np.complexfloating]) -> Array:
        full = np.fft.irfft(cross, self._size, axis=-1)
        return full[..., self.lags % self._size].astype(np.float64)

    def ms(self, place: float) -> float:
        """Milliseconds of a place among the lags."""
        return (place + float(self.lags[0])) * 1000 / FPS


def _centred(values: Curves) -> Array:
    """[T, D] about its mean, 0 where unknown."""
    wide = values.astype(np.float64)
    known = ~np.isnan(wide)
    mean = np.where(known, wide, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, wide - mean, 0)
