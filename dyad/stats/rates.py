"""How often, how long and together with what each action unit moves.

Frames that are not annotated (NaN) are left out of every figure and counted; a figure without any frame is NaN.
Shapes: T frames at 30 Hz, A action units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS
from dyad.session import Session

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Figures per unit, each [A], and of the whole."""

    au_names: tuple[str, ...]
    sessions: int
    frames: int
    known: Array
    """Share of frames in which the activation is annotated."""
    sessions_known: Array
    """Sessions with any annotation of the unit."""
    prob_mean: Array
    """Mean probability over the frames where it is annotated."""
    rate: Array
    """Share of annotated frames in which the unit is active."""
    strength: Array
    """Mean probability while active: a faint unit stays low."""
    events_per_minute: Array
    """Movements per annotated minute."""
    duration_s: Array
    """Median length of a movement."""
    long_s: Array
    """Length that a tenth of the movements exceed."""
    together: Array
    """[A, A] correlation (φ) of being active, over the frames where both units are annotated."""
    given: Array
    """[A, A] share of the row's active frames in which the column's unit is active too."""
    still: float
    """Share of annotated frames in which no unit is active."""
    active_at_once: float
    """Mean number of active units per annotated frame."""

    @property
    def minutes(self) -> float:
        """Length of all sessions."""
        return self.frames / FPS / 60

    @property
    def unknown_units(self) -> list[str]:
        """Units that no session is annotated for."""
        return [u for u, n in zip(self.au_names, self.sessions_known, strict=True) if n == 0]


def runs(active: NDArray[np.floating]) -> NDArray[np.intp]:
    """Lengths of the movements in a column [T] of 0, 1 and NaN, in frames; an unknown frame ends a movement."""
    on = np.concatenate([[False], active > 0.5, [False]])
    edges = np.flatnonzero(on[1:] != on[:-1])
    return edges[1::2] - edges[::2]


def measure(sessions: Iterable[Session], au_names: Sequence[str]) -> Rates:
    """All figures in one pass; raises ValueError when there is no session."""
    n = len(au_names)
    sums = {k: np.zeros(n) for k in ("known", "active", "prob", "prob_known", "strength", "both_known", "sessions")}
    pairs = {k: np.zeros((n, n)) for k in ("known", "first", "both")}
    lengths: list[list[int]] = [[] for _ in au_names]
    count = frames = labelled = still = at_once = 0
    for session in sessions:
        count, frames = count + 1, frames + session.n_frames
        known, on = ~np.isnan(session.act), session.act > 0.5
        prob_known = ~np.isnan(session.prob)
        sums["known"] += known.sum(axis=0)
        sums["sessions"] += (known | prob_known).any(axis=0)
        sums["active"] += on.sum(axis=0)
        sums["prob"] += np.nansum(session.prob, axis=0, dtype=np.float64)
        sums["prob_known"] += prob_known.sum(axis=0)
        sums["strength"] += np.where(on & prob_known, session.prob, 0).sum(axis=0, dtype=np.float64)
        sums["both_known"] += (on & prob_known).sum(axis=0)
        k, o = known.astype(np.float64), on.astype(np.float64)
        for key, (left, right) in {"known": (k, k), "first": (o, k), "both": (o, o)}.items():
            pairs[key] += left.T @ right
        seen = known.any(axis=1)
        labelled, still = labelled + int(seen.sum()), still + int((seen & ~on.any(axis=1)).sum())
        at_once += int(on.sum())
        for a in range(n):
            lengths[a].extend(int(v) for v in runs(session.act[:, a]))
    if not count:
        raise ValueError("no session to measure; a dataset needs at least one")
    return Rates(
        au_names=tuple(au_names),
        sessions=count,
        frames=frames,
        known=sums["known"] / max(frames, 1),
        sessions_known=sums["sessions"],
        prob_mean=share(sums["prob"], sums["prob_known"]),
        rate=share(sums["active"], sums["known"]),
        strength=share(sums["strength"], sums["both_known"]),
        events_per_minute=share(np.array([len(v) for v in lengths], np.float64), sums["known"] / FPS / 60),
        duration_s=np.array([np.median(v) / FPS if v else np.nan for v in lengths]),
        long_s=np.array([np.quantile(v, 0.9) / FPS if v else np.nan for v in lengths]),
        together=phi(pairs["known"], pairs["first"], pairs["both"]),
        given=share(pairs["both"], pairs["first"]),
        still=still / labelled if labelled else float("nan"),
        active_at_once=at_once / labelled if labelled else float("nan"),
    )


def share(part: Array, whole: Array) -> Array:
    """`part` / `whole`, NaN where there is no whole."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def phi(known: Array, first: Array, both: Array) -> Array:
    """Correlation [A, A] of two binary units from counts: frames where both are known, the row's active, both active.

    NaN where one of them is always active or never.
    """
    p, q, joint = share(first, known), share(first.T, known), share(both, known)
    spread = p * (1 - p) * q * (1 - q)
    varies = spread > 1e-15
    return np.where(varies, (joint - p * q) / np.sqrt(np.where(varies, spread, 1)), np.nan)
