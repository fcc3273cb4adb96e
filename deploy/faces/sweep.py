"""Search the whole picture for everybody, a slice at a time, so that no frame takes long.

A slice is a band of face sizes; for small faces, which cost most, also a part of the picture. Slices overlap: a face
lies wholly in one of them.
"""

from dyad.clock import FPS
from student.detect import Detector, Faces, Picture

SLICES = ((0.36, 0.0, 1.0), (0.22, 0.0, 1.0), (0.135, 0.0, 0.5), (0.135, 0.5, 1.0))
"""Least size as a share of the picture's shorter side, and from where to where in shares of its width."""
REACH = 1.3
"""How far a band goes beyond the lower end of the band above."""
LEAST_PX = 24
EVERY_FRAMES = FPS // len(SLICES)


class Sweep:
    """One slice every few frames, all of them once a second; at the start and after a cut, one every frame."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._slice = 0
        self._eager = len(SLICES)
        self._wait = 0

    def hurry(self) -> None:
        """Begin anew, a slice every frame."""
        self._slice, self._eager, self._wait = 0, len(SLICES), 0

    def step(self, small: Picture) -> Faces | None:
        """Faces of the slice that is due in the next picture, at the detector's scale; None when none is due."""
        if self._wait:
            self._wait -= 1
            return None
        share, start, stop = SLICES[self._slice]
        self._slice = (self._slice + 1) % len(SLICES)
        self._eager = max(self._eager - 1, 0)
        self._wait = 0 if self._eager else EVERY_FRAMES - 1
        height, width = small.shape[:2]
        above = min((s for s, _, _ in SLICES if s > share), default=0.0)
        least, most = max(int(share * min(height, width)), LEAST_PX), int(above * REACH * min(height, width))
        if stop - start == 1.0:
            return self._detector.find(small, least_px=least, most_px=most, effort="quick")
        region = max(int(start * width) - most // 2, 0), 0, min(int(stop * width) + most // 2, width), height
        return self._detector.find(small, region, least_px=least, most_px=most, effort="quick")
