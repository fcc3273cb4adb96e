"""Who somebody is: a few remembered looks (anchors) per person, chosen, compared and renewed as they are seen.

Source: seed 004, "select anchor features, compare, update dynamically". A look is remembered only when it is sharp,
frontal and new: surely the person (above `other`), yet unlike the looks known (below `alike`). A full bank gives up
the anchor that least adds to the others, old ones first.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.faces.embedding import Embedding, Vector
from student.detect import Picture

MOST_ANCHORS = 5
SHARP = 0.12
"""Least Laplacian variance per grey variance at 64 px: 17 real clips 0.14 or more, out of focus 0.02, in motion 0.03 to
0.12."""
FRONTAL = 0.3
"""Least detector score: the frontal cascade votes less as the head turns."""
NOSE_OFF = 0.35
"""Most that the nose may be off the middle between the eyes, in eye distances, where the detector gives points."""
AGE_S = 60.0
"""An anchor unconfirmed for this long counts half when one must go."""


def sharpness(crop: Picture) -> float:
    """Laplacian variance of a face crop per variance of its grey levels; high when in focus."""
    small = cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var() / (grey.var() + 1))


def is_frontal(score: float, points: NDArray[np.float64] | None) -> bool:
    """Whether the face looks this way: by its landmarks [5, 2], else by the frontal detector's own score."""
    if points is None:
        return score >= FRONTAL
    eyes = float(np.linalg.norm(points[1] - points[0]))
    middle = (points[0] + points[1]) / 2
    return abs(float(points[2, 0] - middle[0])) <= NOSE_OFF * max(eyes, 1.0)


@dataclass(eq=False)
class Anchor:
    """One look, when it was last confirmed (s), and its vector."""

    vector: Vector
    at_s: float


@dataclass
class AnchorBank:
    """The looks of one person."""

    embedding: Embedding
    anchors: list[Anchor] = field(default_factory=list)

    def likeness(self, vector: Vector) -> float:
        """Cosine with the nearest look; -1 for an empty bank."""
        return max((float(a.vector @ vector) for a in self.anchors), default=-1.0)

    def learn(self, vector: Vector, now_s: float) -> bool:
        """Remember a good look of this person if it adds something; returns whether it does."""
        likeness = self.likeness(vector)
        if likeness >= self.embedding.alike:
            nearest = max(self.anchors, key=lambda a: float(a.vector @ vector))
            nearest.at_s = now_s
            return False
        if self.anchors and likeness <= self.embedding.other:
            return False
        self.anchors.append(Anchor(vector, now_s))
        if len(self.anchors) > MOST_ANCHORS:
            self.anchors.remove(min(self.anchors[:-1], key=lambda a: self._worth(a, now_s)))
        return True

    def _worth(self, anchor: Anchor, now_s: float) -> float:
        """How unlike the other looks it is; half when old."""
        rest = [float(anchor.vector @ a.vector) for a in self.anchors if a is not anchor]
        return (1 - max(rest)) * (0.5 if now_s - anchor.at_s > AGE_S else 1.0)


class Register:
    """Everybody who was seen lately, by number."""

    def __init__(self, embedding: Embedding, remember_s: float) -> None:
        self.embedding, self.remember_s = embedding, remember_s
        self._banks: dict[int, AnchorBank] = {}
        self._seen_s: dict[int, float] = {}
        self._next = 1

    def newcomer(self, now_s: float) -> int:
        """A number for somebody unknown."""
        self._forget(now_s)
        number, self._next = self._next, self._next + 1
        self._banks[number], self._seen_s[number] = AnchorBank(self.embedding), now_s
        return number

    def recognise(self, vector: Vector, absent: set[int]) -> tuple[int | None, bool]:
        """(who of the absent this is, or None; whether that is certain)."""
        likeness = {n: bank.likeness(vector) for n, bank in self._banks.items() if n in absent}
        best = max(likeness, key=lambda n: likeness[n], default=None)
        if best is None or likeness[best] < self.embedding.other:
            return None, True
        return (best, True) if likeness[best] > self.embedding.same else (None, False)

    def likeness(self, number: int, vector: Vector) -> float:
        """Cosine of a look with the nearest one known of a person; -1 when nothing is known."""
        return self._banks[number].likeness(vector) if number in self._banks else -1.0

    def see(self, number: int, now_s: float, vector: Vector | None = None) -> None:
        """The person is there; `vector` is a look worth remembering."""
        bank = self._banks.setdefault(number, AnchorBank(self.embedding))
        self._seen_s[number] = now_s
        if vector is not None:
            bank.learn(vector, now_s)

    def absent(self, present: set[int]) -> set[int]:
        """Numbers of the remembered who are not among the present."""
        return set(self._banks) - present

    def looks(self, number: int) -> int:
        """How many looks of a person are remembered."""
        return len(self._banks[number].anchors) if number in self._banks else 0

    def _forget(self, now_s: float) -> None:
        for number in [n for n, seen in self._seen_s.items() if now_s - seen > self.remember_s]:
            del self._banks[number], self._seen_s[number]
