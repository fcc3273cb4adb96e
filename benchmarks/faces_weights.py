"""What each clue of who speaks counts: chosen on some clips, scored on others that had no part in it.

What the frames of a pair brought is recorded once; the product's own `SpeakerChoice` weighs it anew for each candidate.
Two ways to hold out: every way to choose on the pairs among one half of the clips and to score on those among the
other half; and every pair scored with what is best among all clips but its own two.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.faces.config import FacesConfig
from deploy.faces.speaker import Clues, SpeakerChoice, Weights
from dyad.clock import FPS

SETTLE_FRAMES = 3 * FPS // 2
"""From when on the choice is scored."""
GRID = [
    Weights(agreement=agreement, control=control, memory_s=memory_s, lead_frames=lead)
    for agreement in (0.0, 0.25, 0.5, 0.75, 1.0)
    for control in (0.0, 0.5, 1.0)
    for memory_s in (1.5, 2.5, 4.0)
    for lead in (0, 2, 4)
]


@dataclass(frozen=True)
class Tape:
    """What the frames of one pair brought."""

    clues: list[Clues]
    watched: list[int | None]
    sides: list[dict[int, int]]
    """Number → side, 0 is the talker's."""
    owners: list[dict[int, int]]
    """Side → number of the largest face there."""


def again(tape: Tape, weights: Weights) -> list[int | None]:
    """Whom the robot would watch with other weights."""
    config = FacesConfig()
    choice = SpeakerChoice(config.switch_s, config.switch_margin, weights)
    watched: int | None = None
    out: list[int | None] = []
    for clues, first, known in zip(tape.clues, tape.watched, tape.sides, strict=True):
        choice.hear(clues.voice, clues.level_db)
        if clues.mouths:
            choice.weigh(clues.mouths)
        else:
            choice.forget()
        watched = first if watched is None else choice.choose(watched) if watched in known else watched
        out.append(watched)
    return out


def right_share(tape: Tape, watched: Sequence[int | None]) -> float:
    """Share of the scored frames in which the talker is watched."""
    scored = list(zip(watched, tape.sides, strict=True))[SETTLE_FRAMES:]
    return float(np.mean([known.get(w or 0) == 0 for w, known in scored]))


def halves(names: Sequence[str]) -> Iterator[tuple[set[str], set[str]]]:
    """Every way to choose on one half of the clips and to score on the other."""
    for size in {len(names) // 2, len(names) - len(names) // 2}:
        for chosen in itertools.combinations(names, size):
            yield set(chosen), set(names) - set(chosen)


def held_out(shares: NDArray[np.float64], pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, Any]:
    """Scores held out, of the weights alone and of weights and times; `shares` is [GRID, pairs]."""
    standard = Weights()
    alone = [i for i, w in enumerate(GRID) if (w.memory_s, w.lead_frames) == (standard.memory_s, standard.lead_frames)]
    return {
        "weights": _scores(shares[alone], pairs, names),
        "weights and times": _scores(shares, pairs, names) | {"best_on_all": vars(GRID[int(shares.mean(1).argmax())])},
    }


def _scores(shares: NDArray[np.float64], pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, Any]:
    def best_among(clips: set[str]) -> tuple[int, list[int]]:
        among = [i for i, pair in enumerate(pairs) if set(pair) <= clips]
        return int(np.argmax(shares[:, among].mean(axis=1))), among

    own, other = [], []
    for chosen, rest in halves(names):
        best, tuned_on = best_among(chosen)
        own.append(shares[best, tuned_on].mean())
        other.append(shares[best, best_among(rest)[1]].mean())
    without = [shares[best_among(set(names) - set(pair))[0], i] for i, pair in enumerate(pairs)]
    return {
        "candidates": len(shares),
        "ways_to_halve": len(other),
        "other_half": round(float(np.mean(other)), 4),
        "other_half_p5_p95": [round(float(v), 4) for v in np.percentile(other, (5, 95))],
        "own_half": round(float(np.mean(own)), 4),
        "without_the_two": round(float(np.mean(without)), 4),
    }
