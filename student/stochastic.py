"""Several appropriate reactions instead of one: draws around a deterministic prediction, coherent in time.

A student predicts the expectation over all the ways in which a listener may react; no listener shows it. The head holds
what training sessions did beyond it: the distribution of the residual in log-odds, unit by unit, at several levels of
the prediction; what part of it is a listener's style, which stays for the whole conversation; how long the rest
lasts (AR(1)); how units go together (correlations, shrunk towards none as few sessions demand); and how much a face
eases into what comes (a second AR(1) behind the first, without which draws jitter at twice a listener's speed). A draw
runs forward in time and needs no future. Temperature scales the deviation: 0 is the deterministic prediction, bit for
bit.
The robot's loop is deterministic unless it asks for a draw.
Shapes: T frames, A units, K draws, L levels, Q = 25 quantiles.  Shrinkage: Schäfer & Strimmer, 2005, over sessions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dyad.provenance import atomic_path

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
SCORES: Array = np.arange(-3.0, 3.01, 0.25, dtype=np.float64)
"""Standard normal deviates at which the residuals' distribution is held."""
CUTS = (0.25, 0.5, 0.7, 0.85, 0.93, 0.97, 0.99)
"""Shares of the frames between levels of the prediction: finer where reactions are foreseen."""
LEVELS = len(CUTS) + 1
EDGE = 1e-3
"""Probabilities are read no nearer to 0 and 1 than this."""
FEW = 5000
"""Annotated frames below which a unit has one level."""
EASES = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SOME = 8
"""Training sessions on which the speed of draws is measured."""


@dataclass(frozen=True)
class Head:
    """What training sessions did beyond the prediction."""

    levels: Array
    """Log-odds of the prediction at which residuals are held, [A, L], ascending."""
    residual: Array
    """Quantiles of truth minus prediction in log-odds, [A, L, Q]."""
    share: Array
    """Part of the deviation's variance that is style and stays for the whole conversation, [A]."""
    carry: Array
    """AR(1) coefficient of the rest from frame to frame, [A]."""
    style: Array
    """Triangular factor of the correlation of styles, [A, A]."""
    moment: Array
    """The same of the rest at one moment."""
    innovation: Array
    """The same of what is new in every frame."""
    ease: Array
    """Coefficient of the second stage, one number, at which draws move as fast as training listeners."""

    def save(self, path: Path) -> None:
        """Write as .npz, all or nothing."""
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "Head":
        """Read what `save` wrote."""
        if not path.is_file():
            raise ValueError(f"{path}: no such file; python -m distill.evaluate --samples 10 writes one")
        with np.load(path, allow_pickle=False) as content:
            return cls(**{f.name: content[f.name] for f in fields(cls)})

    def quantile(self, level: Array, deviate: Array) -> Array:
        """Residual in log-odds at predictions `level` [T, A] and standard normal `deviate` [T, A]."""
        units = np.arange(level.shape[1])
        at = np.clip((deviate - SCORES[0]) / (SCORES[1] - SCORES[0]), 0, len(SCORES) - 1)
        q = np.minimum(at.astype(int), len(SCORES) - 2)
        low, high, u = _between(level, self.levels)
        v = at - q
        below, above = ((1 - v) * self.residual[units, i, q] + v * self.residual[units, i, q + 1] for i in (low, high))
        return (1 - u) * below + u * above


def _between(level: Array, levels: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Of predictions [T, A]: the levels below and above, and how far it is from the one to the other; held at ends."""
    steps = np.arange(levels.shape[1])
    at = np.stack([np.interp(level[:, a], one, steps) for a, one in enumerate(levels)], axis=1)
    low = np.minimum(at.astype(int), len(steps) - 1)
    return low, np.minimum(low + 1, len(steps) - 1), at - low


class Reaction:
    """One listener of many: follows a prediction frame by frame. The same head, name, seed and number: the same one."""

    def __init__(self, head: Head, *, name: str, seed: int = 0, number: int = 0, temperature: float = 1.0) -> None:
        if temperature < 0:
            raise ValueError(f"temperature: a number ≥ 0 is needed; got {temperature}; 0 draws nothing, 1 as in life")
        self._head, self._temperature = head, temperature
        who = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        self._random = np.random.default_rng([seed, number, who])
        units = len(head.share)
        self._style = np.sqrt(head.share) * (head.style @ self._random.standard_normal(units))
        self._moment = head.moment @ self._random.standard_normal(units)
        # The second stage starts where it would be had the first run for ever.
        a, b = head.carry, head.ease
        shared, power = (1 - b) / (1 - a * b), (1 - b) * (1 + a * b) / ((1 + b) * (1 - a * b))
        fresh = np.sqrt(np.maximum(power - shared**2, 0))
        self._eased = shared * self._moment + fresh * (head.moment @ self._random.standard_normal(units))
        self._scale = np.sqrt((1 - head.share) / power)

    def follow(self, prob: Floats) -> Floats:
        """The reaction [T, A] to the next frames' prediction [T, A]; cut anywhere, the frames are the same."""
        if self._temperature == 0:
            return prob
        level = log_odds(prob)
        made = level + self._temperature * self._head.quantile(level, self._deviates(len(prob)))
        return (1 / (1 + np.exp(-made))).astype(np.float32)

    def _deviates(self, frames: int) -> Array:
        """Standard normal [T, A]: style and the wandering rest."""
        head, out = self._head, np.empty((frames, len(self._moment)))
        new = self._random.standard_normal(out.shape)
        fresh, ease = np.sqrt(1 - head.carry**2), float(head.ease)
        for t in range(frames):
            self._moment = head.carry * self._moment + fresh * (head.innovation @ new[t])
            self._eased = ease * self._eased + (1 - ease) * self._moment
            out[t] = self._eased
        return self._style + self._scale * out


def draw(head: Head, prob: Floats, *, name: str, count: int, seed: int = 0, temperature: float = 1.0) -> Floats:
    """`count` reactions [K, T, A] around a session's prediction [T, A]; fewer draws are the first of more."""
    made = [Reaction(head, name=name, seed=seed, number=k, temperature=temperature).follow(prob) for k in range(count)]
    return np.stack(made)


def log_odds(prob: NDArray[np.floating]) -> Array:
    """Log-odds of probabilities kept off 0 and 1; NaN stays."""
    p = np.clip(prob.astype(np.float64), EDGE, 1 - EDGE)
    return np.log(p / (1 - p))


def fit(predicted: Sequence[Floats], true: Sequence[Floats]) -> Head:
    """Head of training sessions: lists of [T, A] of equal lengths; NaN truth is left out.

    A unit that was never annotated gets no deviation.
    """
    if not predicted:
        raise ValueError("no training session has predictions; a stochastic head is fitted on those, never on others")
    level, gap = [log_odds(p) for p in predicted], [log_odds(y) for y in true]
    gap = [y - p for y, p in zip(gap, level, strict=True)]
    levels, residual = _tables(np.concatenate(level), np.concatenate(gap))
    scored = [_deviates_of(p, r, levels, residual) for p, r in zip(level, gap, strict=True)]
    style = np.stack([_session_mean(z) for z in scored])
    rest = [np.nan_to_num(z - m) for z, m in zip(scored, style, strict=True)]
    carry, spread = _carry(rest), _mean_square(rest, scored)
    moment = _shrunk(np.stack([z.T @ z / len(z) for z in rest]), spread)
    between = np.square(style).mean(axis=0)
    apart = np.stack([np.outer(m, m) for m in style])
    # A session's mean of a wandering rest is not 0: what it explains of the means' spread is no style.
    wandering = spread * (1 + carry) / (1 - carry) / np.mean([len(z) for z in rest])
    lasting = np.maximum(between - wandering, 0)
    share = np.where(lasting + spread > 0, lasting / np.maximum(lasting + spread, 1e-12), 0.0)
    new = moment * (1 - np.outer(carry, carry)) / np.sqrt(np.outer(1 - carry**2, 1 - carry**2))
    factors = (_factor(_shrunk(apart, between)), _factor(moment), _factor(new))
    return _eased(Head(levels, residual, share, carry, *factors, np.array(0.0)), predicted, true)


def _eased(head: Head, predicted: Sequence[Floats], true: Sequence[Floats]) -> Head:
    """The head whose draws' mean speed is nearest to that of some training listeners."""
    some = list(zip(predicted, true, strict=True))[:SOME]
    wanted = _speed([y for _, y in some])
    heads = [replace(head, ease=np.array(ease)) for ease in EASES]
    made = [_speed([draw(one, p, name=f"{i}", count=1)[0] for i, (p, _) in enumerate(some)]) for one in heads]
    return heads[int(np.argmin([abs(speed - wanted) for speed in made]))]


def _speed(curves: Sequence[Floats]) -> float:
    """Mean step of curves [T, A] from frame to frame; 0 where nothing is known."""
    steps = np.concatenate([np.abs(np.diff(c, axis=0)).ravel() for c in curves])
    known = steps[~np.isnan(steps)]
    return float(known.mean()) if len(known) else 0.0


def _tables(level: Array, gap: Array) -> tuple[Array, Array]:
    """Levels [A, L] and the residuals' quantiles [A, L, Q] of all training frames [N, A]."""
    quantiles = [NormalDist().cdf(float(v)) for v in SCORES]
    units = level.shape[1]
    levels, residual = np.zeros((units, LEVELS)), np.zeros((units, LEVELS, len(SCORES)))
    for a in range(units):
        known = np.flatnonzero(~np.isnan(gap[:, a]))
        if not len(known):
            continue
        order = known[np.argsort(level[known, a], kind="stable")]
        parts = np.split(order, [int(c * len(order)) for c in CUTS]) if len(order) >= FEW else [order] * LEVELS
        levels[a] = [level[part, a].mean() for part in parts]
        residual[a] = [np.quantile(gap[part, a], quantiles) for part in parts]
    return levels, residual


def _deviates_of(level: Array, gap: Array, levels: Array, residual: Array) -> Array:
    """Standard normal deviate of every residual [T, A]: what `Head.quantile` takes back to it; NaN unknown."""
    low, high, u = _between(level, levels)
    out = np.full(gap.shape, np.nan)
    for a in range(gap.shape[1]):
        curve = (1 - u[:, a, None]) * residual[a, low[:, a]] + u[:, a, None] * residual[a, high[:, a]]
        known = ~np.isnan(gap[:, a])
        q = np.clip((curve <= gap[:, a, None]).sum(axis=1) - 1, 0, len(SCORES) - 2)
        left, right = (np.take_along_axis(curve, i[:, None], axis=1)[:, 0] for i in (q, q + 1))
        part = np.where(right > left, (gap[:, a] - left) / np.maximum(right - left, 1e-12), 0.5)
        out[known, a] = (SCORES[q] + (SCORES[1] - SCORES[0]) * np.clip(part, 0, 1))[known]
    return out


def _session_mean(z: Array) -> Array:
    known = ~np.isnan(z)
    return np.where(known, z, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def _carry(rest: Sequence[Array]) -> Array:
    """Correlation of a frame with the next, [A], within 0 … 0.999."""
    shared = np.sum([(z[1:] * z[:-1]).sum(axis=0) for z in rest], axis=0)
    power = np.sum([np.square(z[:-1]).sum(axis=0) for z in rest], axis=0)
    return np.clip(np.where(power > 0, shared / np.maximum(power, 1e-12), 0.0), 0.0, 0.999)


def _mean_square(rest: Sequence[Array], scored: Sequence[Array]) -> Array:
    known = np.sum([(~np.isnan(z)).sum(axis=0) for z in scored], axis=0)
    return np.sum([np.square(z).sum(axis=0) for z in rest], axis=0) / np.maximum(known, 1)


def _shrunk(products: Array, power: Array) -> Array:
    """Correlation of sessions' products [S, A, A], shrunk towards none by how much sessions disagree."""
    scale = np.sqrt(np.maximum(np.outer(power, power), 1e-12))
    each = products / scale
    mean, off = each.mean(axis=0), ~np.eye(len(power), dtype=bool)
    doubt = each.var(axis=0, ddof=1)[off].sum() / len(each) if len(each) > 1 else np.inf
    weight = float(np.clip(doubt / max(np.square(mean[off]).sum(), 1e-12), 0, 1))
    shrunk = np.where(off, (1 - weight) * mean, 1.0)
    return np.clip(shrunk, -1, 1)


def _factor(correlation: Array) -> Array:
    """Triangular factor of the nearest correlation that there can be: no direction of negative variance."""
    values, vectors = np.linalg.eigh(correlation)
    whole = (vectors * np.maximum(values, 1e-6)) @ vectors.T
    scale = np.sqrt(np.diag(whole))
    return np.linalg.cholesky(whole / np.outer(scale, scale)).astype(np.float64)
