"""Search the whole picture for everybody, a slice at a time, so that no frame takes long.

A slice is a band of face sizes; for small faces, which cost most, also a part of the picture. Slices overlap: a face
lies wholly in one of them. Faces that are known anyway are painted over: the cascade takes longest on a face. Where
nothing has changed beside them since a slice was searched, it is searched again at every fourth turn only.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dyad.clock import FPS
from student.detect import NOBODY, Detector, Faces, Picture

SLICES = ((0.36, 0.0, 1.0), (0.22, 0.0, 1.0), (0.135, 0.0, 0.5), (0.135, 0.5, 1.0))
"""Least size as a share of the picture's shorter side, and from where to where in shares of its width."""
REACH = 1.3
"""How far a band goes beyond the lower end of the band above."""
LEAST_PX = 24
ORDER = (0, 1, 2, 0, 1, 3)
"""Slices that follow one another: all of them in two seconds, the larger faces every second."""
EVERY_FRAMES = 2 * FPS // len(ORDER)
GRAIN_PX = 4
"""Of the picture, every so many pixels are compared with those of the last search."""
CHANGED_LEVELS, CHANGED_PIXELS = 25, 6
"""So many of these pixels that differ by more are a change: a sixth of the smallest face."""
BODY = (-1.0, -0.5, 1.0)
"""How far to the left, above and to the right of a known face changes are its own, in widths; and all below."""
SKIPS = 3
Boxes = Sequence[NDArray[np.float64]]


class Sweep:
    """One slice every few frames; at the start and after a cut all of them at once, one every frame."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.hurry()

    def hurry(self) -> None:
        """Begin anew, a slice every frame."""
        self._turns = itertools.chain(range(len(SLICES)), itertools.cycle(ORDER))
        self._eager, self._wait = len(SLICES), 0
        self._searched: dict[int, NDArray[np.int16]] = {}
        self._skipped = [0] * len(SLICES)

    def is_due(self) -> bool:
        """Whether the next picture is to be searched; asked once per frame in which there is time for it."""
        self._wait -= 1
        return self._wait < 0

    def step(self, small: Picture, known: Boxes = (), sought: Boxes = ()) -> Faces:
        """Faces of the next slice, in a picture at the detector's scale, except those in the boxes [4] `known`.

        Those in `sought` are to be found again; a band of smaller faces finds only parts of them.
        """
        turn = next(self._turns)
        self._eager = max(self._eager - 1, 0)
        self._wait = 0 if self._eager else EVERY_FRAMES - 1
        if not self._is_worth_it(turn, small, known) and not sought:
            return NOBODY
        share, start, stop = SLICES[turn]
        height, width = small.shape[:2]
        above = min((s for s, _, _ in SLICES if s > share), default=0.0)
        least, most = max(int(share * min(height, width)), LEAST_PX), int(above * REACH * min(height, width))
        small = painted(small, [*known, *(box for box in sought if box[2] - box[0] > most > 0)])
        if stop - start == 1.0:
            return self._detector.find(small, least_px=least, most_px=most, effort="quick")
        region = max(int(start * width) - most // 2, 0), 0, min(int(stop * width) + most // 2, width), height
        return self._detector.find(small, region, least_px=least, most_px=most, effort="quick")

    def _is_worth_it(self, turn: int, small: Picture, known: Boxes) -> bool:
        """Whether anything has changed since this slice was searched, or it has been left out often enough."""
        now, last = small[::GRAIN_PX, ::GRAIN_PX, 1].astype(np.int16), self._searched.get(turn)
        if last is not None and last.shape == now.shape and self._skipped[turn] < SKIPS:
            changed = np.abs(now - last) > CHANGED_LEVELS
            for box in known:
                left, top, right = _pixels((box[:3] + np.array(BODY) * (box[2] - box[0])) / GRAIN_PX)
                changed[top:, left:right] = False
            if np.count_nonzero(changed) < CHANGED_PIXELS:
                self._skipped[turn] += 1
                return False
        self._searched[turn], self._skipped[turn] = now, 0
        return True


def _pixels(box: NDArray[np.float64]) -> tuple[int, ...]:
    """Corners in whole pixels, not before the picture's first."""
    return tuple(max(int(v), 0) for v in box)


def painted(picture: Picture, boxes: Boxes) -> Picture:
    """The picture with each box in one colour, its own mean; itself when there are none."""
    out = picture.copy() if boxes else picture
    for box in boxes:
        left, top, right, bottom = _pixels(box)
        inside = out[top:bottom, left:right]
        if inside.size:
            inside[:] = inside.mean(axis=(0, 1)).astype(np.uint8)
    return out
