"""The listener: a causal stochastic reaction process over the speaker's events.

event → {unit: amplitude} with a probability, a log-normal lag, a hold; persona gains; refractory backchannels;
spontaneous movements; then probability = sigmoid(bias + gain x activation + AR(1) noise). Depends on nothing but the
events so far and its own chance. Lags: smile mimicry 0.6 s (a quarter fast), laughter 0.4, backchannels 0.35–0.45,
sadness 0.9, surprise 0.45, disgust 0.6, fright 0.55, thought 1.0 s (literature values collected for this product).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.synthetic.script import Event, envelope

UNITS = SEED17.units


@dataclass(frozen=True)
class Reaction:
    """One way to answer an event; lags in seconds."""

    units: dict[str, float]
    probability: float
    lag_s: float
    hold_s: float
    kind: str
    lag_sigma: float = 0.3
    fast_share: float = 0.0


REACTIONS: dict[str, tuple[Reaction, ...]] = {
    "smile": (Reaction({"AU12": 0.85, "AU6": 0.5}, 0.8, 0.6, 1.3, "mimicry", fast_share=0.25),),
    "laugh": (Reaction({"AU12": 1.0, "AU6": 0.85, "AU25": 0.7}, 0.92, 0.4, 1.7, "mimicry"),),
    "pause_low": (
        Reaction({"AU1": 0.7, "AU2": 0.7}, 0.35, 0.4, 0.5, "backchannel"),
        Reaction({"AU12": 0.65, "AU14": 0.4}, 0.35, 0.45, 0.8, "backchannel"),
        Reaction({"AU17": 0.6, "AU23": 0.6}, 0.2, 0.35, 0.45, "backchannel"),
    ),
    "pause": (Reaction({"AU1": 0.6, "AU2": 0.6}, 0.12, 0.4, 0.5, "backchannel"),),
    "long_turn": (Reaction({"AU14": 0.6, "AU12": 0.4}, 0.4, 0.45, 0.8, "backchannel"),),
    "pitch_rise": (Reaction({"AU1": 0.75, "AU2": 0.75}, 0.6, 0.4, 0.6, "backchannel"),),
    "brow_raise": (Reaction({"AU5": 0.6, "AU25": 0.5}, 0.4, 0.5, 0.7, "mimicry"),),
    "frown": (Reaction({"AU1": 0.6, "AU7": 0.7}, 0.5, 0.6, 0.9, "mimicry"),),
    "funny": (Reaction({"AU12": 0.8, "AU6": 0.6, "AU25": 0.4}, 0.7, 0.7, 1.4, "emotion"),),
    "sad": (Reaction({"AU4": 0.8, "AU14": 0.7, "AU15": 0.5, "AU23": 0.5}, 0.8, 0.9, 1.8, "emotion"),),
    "surprising": (Reaction({"AU5": 0.6, "AU12": 0.5, "AU25": 0.8, "AU26": 0.7}, 0.8, 0.45, 1.2, "emotion"),),
    "gross": (Reaction({"AU7": 0.8, "AU9": 0.7, "AU10": 0.7, "AU20": 0.6}, 0.65, 0.6, 1.3, "emotion"),),
    "scary": (Reaction({"AU2": 0.6, "AU4": 0.6, "AU20": 0.7, "AU25": 0.6}, 0.7, 0.55, 1.3, "emotion"),),
    "thoughtful": (
        Reaction({"AU2": 0.6, "AU17": 0.7}, 0.6, 1.0, 1.6, "emotion"),
        Reaction({"AU18": 0.7, "AU4": 0.5}, 0.25, 1.0, 1.2, "emotion"),
    ),
    "question": (Reaction({"AU1": 0.6, "AU12": 0.6, "AU14": 0.4}, 0.6, 0.5, 0.9, "emotion"),),
}
"""How a listener answers each kind of event. A smile or a laugh is mirrored; most other answers use units of their own,
as people do: a sad story draws pressed lips and lowered brows, not tears. A mirror is therefore not a good listener.
"""

SPONTANEOUS: tuple[tuple[str, ...], ...] = (("AU12",), ("AU1", "AU2"), ("AU14",), ("AU18",), ("AU25", "AU26"), ("AU4",))
SPONTANEOUS_PER_MIN = 4.0
REFRACTORY_S = 0.8
"""A backchannel keeps the next one away for this long."""
GAIN = np.array([4.6 if unit == "AU18" else 6.2 for unit in UNITS], np.float32)
BIAS = np.array([-4.2 if unit in ("AU9", "AU10", "AU20", "AU5", "AU18") else -3.4 for unit in UNITS], np.float32)
NOISE_STEP, NOISE_KEEP = 0.18, 0.85
ON, OFF = 0.5, 0.42
"""A unit counts as active from ON until it falls below OFF."""


@dataclass(frozen=True)
class Persona:
    """How this listener differs from the average one."""

    reaction: float
    mimicry: float
    backchannel: float
    lag: float
    bias: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Persona":
        """A random persona."""
        reaction, mimicry, backchannel, lag = (float(g) for g in np.exp(rng.normal(0, (0.3, 0.4, 0.4, 0.15))))
        return cls(reaction, mimicry, backchannel, lag, rng.normal(0, 0.55, len(UNITS)).astype(np.float32))


@dataclass(frozen=True)
class Movement:
    """One movement of the listener's face; times in frames. `cause` is the event's index, -1 when spontaneous."""

    cause: int
    unit: int
    amplitude: float
    start: float
    attack: float
    hold: float
    release: float


def react(events: Sequence[Event], n_frames: int, persona: Persona, rng: np.random.Generator) -> list[Movement]:
    """Draw the listener's movements, the spontaneous ones first, then each event's answers in order of onset, always
    from as many random draws: what comes later cannot change what came before. `noise` is drawn earlier for this too.
    """
    moves = _spontaneous(n_frames, rng)
    free_at = 0.0
    for cause, event in enumerate(events):
        for reaction in REACTIONS[event.kind]:
            chance, fast, lag, hold, attack, release = (
                rng.random(),
                rng.random(),
                *rng.standard_normal(2),
                *rng.random(2),
            )
            gain = {"mimicry": persona.mimicry, "backchannel": persona.backchannel}.get(reaction.kind, 1.0)
            if chance >= min(reaction.probability * gain, 0.97):
                continue
            median_s = 0.17 if fast < reaction.fast_share else reaction.lag_s
            lag_s = max(median_s * persona.lag * np.exp(reaction.lag_sigma * lag), 0.1)
            start = event.onset + lag_s * FPS
            if reaction.kind == "backchannel":
                if start < free_at:
                    continue
                free_at = start + REFRACTORY_S * FPS
            times = (
                start,
                (0.13 + 0.2 * attack) * FPS,
                reaction.hold_s * np.exp(0.4 * hold) * FPS,
                (0.3 + 0.7 * release) * FPS,
            )
            size = persona.reaction * event.amplitude
            moves += [Movement(cause, UNITS.index(u), min(a * size, 1.1), *times) for u, a in reaction.units.items()]
    return moves


def _spontaneous(n_frames: int, rng: np.random.Generator) -> list[Movement]:
    moves: list[Movement] = []
    for start in rng.uniform(0, n_frames, rng.poisson(SPONTANEOUS_PER_MIN * n_frames / FPS / 60)):
        units = SPONTANEOUS[int(rng.integers(len(SPONTANEOUS)))]
        size, hold = rng.uniform(0.5, 0.9), rng.uniform(0.4, 1.2) * FPS
        moves += [Movement(-1, UNITS.index(u), size, float(start), 0.2 * FPS, hold, 0.5 * FPS) for u in units]
    return moves


def activation(
    moves: Sequence[Movement], n_frames: int, known_from: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Muscle activation [T, 17] in [0, 1.1]; `known_from` [events] hides what a cause does until that frame."""
    level = np.zeros((n_frames, len(UNITS)), np.float32)
    for move in moves:
        span, shape = envelope(n_frames, move.start, move.attack, move.hold, move.release)
        if known_from is not None and move.cause >= 0:
            hidden = int(np.clip(known_from[move.cause] - span.start, 0, len(shape)))
            span, shape = slice(span.start + hidden, span.stop), shape[hidden:]
        column = level[span, move.unit]
        np.maximum(column, move.amplitude * shape, out=column)
    return level


def noise(n_frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """AR(1) noise in log-odds, [T, 17]."""
    steps = rng.normal(0, NOISE_STEP, (n_frames, len(UNITS)))
    for t in range(1, n_frames):
        steps[t] += NOISE_KEEP * steps[t - 1]
    return steps.astype(np.float32)


def probability(level: NDArray[np.float32], persona: Persona, wobble: NDArray[np.float32]) -> NDArray[np.float32]:
    """Annotated probability [T, 17] in (0, 1)."""
    return (1 / (1 + np.exp(-(BIAS + persona.bias + GAIN * level + wobble)))).astype(np.float32)


def hysteresis(prob: NDArray[np.float32]) -> NDArray[np.float32]:
    """Active or not, [T, 17] of 0 and 1: on at 0.5, off below 0.42."""
    act = np.zeros_like(prob)
    state = np.zeros(prob.shape[1], bool)
    for t in range(len(prob)):
        state = np.where(state, prob[t] >= OFF, prob[t] >= ON)
        act[t] = state
    return act
