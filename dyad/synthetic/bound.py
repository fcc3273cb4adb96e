"""The best that any causal predictor could do on a synthetic session: E[probability(t + τ) | the past at t].

A Monte Carlo average over listeners who all saw the same speaker. An event may move the average at t + τ only when the
past at t reveals it (`known_at` ≤ t); which listener answers, how late and how strongly stays unknown. Common random
numbers across horizons make their differences exact. Most of a listener is chance: the bound's own skill is far
below 1, and scores are best given as a share of it.

Shapes: T frames, A = 17 units.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.session import Session
from dyad.synthetic.listener import UNITS, Persona, activation, noise, probability, react
from dyad.synthetic.script import Event


def read_events(truth: Path | str) -> tuple[list[Event], int]:
    """Events and frame count of a session's truth file."""
    with np.load(truth, allow_pickle=False) as content:
        rows, n_frames = content["events"], len(content["speaker_au"])
    events = [
        Event(
            kind=str(r["kind"]),
            onset=int(r["onset"]),
            known_at=int(r["known_at"]),
            hold_frames=int(r["hold_frames"]),
            amplitude=float(r["amplitude"]),
        )
        for r in rows
    ]
    return events, n_frames


def expected(
    events: Sequence[Event], n_frames: int, horizon_frames: int, *, listeners: int, seed: int
) -> NDArray[np.float32]:
    """Average probability [T, A] at each frame s over listeners, from what was known by s - horizon."""
    known_from = np.array([e.known_at + horizon_frames for e in events], np.int64)
    total = np.zeros((n_frames, len(UNITS)), np.float64)
    for i in range(listeners):
        rng = np.random.default_rng([seed, i])
        persona = Persona.draw(rng)
        wobble = noise(n_frames, rng)
        moves = react(events, n_frames, persona, rng)
        total += probability(activation(moves, n_frames, known_from), persona, wobble)
    return (total / listeners).astype(np.float32)


def attainable(truth: Path | str, horizon_frames: int, *, listeners: int = 200, seed: int = 0) -> NDArray[np.float32]:
    """Best causal prediction [T, A]: row t is made at frame t for frame t + horizon; past the end the last repeats."""
    events, n_frames = read_events(truth)
    mean = expected(events, n_frames, horizon_frames, listeners=listeners, seed=seed)
    rows = np.minimum(np.arange(n_frames) + horizon_frames, n_frames - 1)
    return mean[rows]


def attainable_skill(
    root: Path | str,
    sessions: Sequence[Session],
    mean: NDArray[np.float32],
    horizon_frames: int,
    *,
    listeners: int = 100,
    seed: int = 0,
) -> float:
    """Share of the variance around `mean` [A] that the bound explains, squared errors summed over frames and units."""
    left = total = 0.0
    for session in sessions:
        truth = Path(root) / "truth" / f"{session.id}.npz"
        best = attainable(truth, horizon_frames, listeners=listeners, seed=seed)[: session.n_frames - horizon_frames]
        true = session.prob[horizon_frames:]
        left += float(np.square(best - true).sum())
        total += float(np.square(mean - true).sum())
    return 1 - left / total
