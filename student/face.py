"""Find one face and keep it: a detector in a tracked region, a steady box in between.

Deterministic and causal: training and the loop call the same code on the same pictures and get the same boxes. The
detector sees a picture at most 320 pixels wide: the whole of it while no face is known and when the face was missed
twice, else the neighbourhood of the last box. A hard cut starts the search anew; a picture that
carries nothing (black, over-exposed) shows no face, and the box is kept for the pictures after it.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from student.detect import Detector, HaarDetector, Picture, Region

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the picture."""

SEARCH_PX = 320
"""The longer side of the picture that the detector sees."""
DETECT_EVERY_FRAMES = 5
"""Between looks at a known face; its box is held meanwhile."""
SEEK_EVERY_FRAMES = 3
"""Between searches of the whole picture while there is no face."""
LEAST_PX = 28
"""The smallest face searched for, in the detector's picture: a sixth of the height of a 16:9 picture."""
SMALL_BANDS = ((64, 0), (42, 72), (LEAST_PX, 48))
"""Sizes (least, most) of the close search without a known face: one band a frame, so that no frame takes long."""
NEAR_SIZES = (0.7, 1.4)
"""Sizes looked for near a known face, in widths of its box."""
HOLD_FRAMES = 30
"""A face not seen for this long is gone; until then its last box is held."""
STEADY = 0.3
"""Share of a new detection in the box of a still face; it grows to 1 as the face moves by a sixth of its width."""
EMPTY_LOW, EMPTY_HIGH = 24, 240
"""A picture whose brightest pixels are below, or whose darkest above, carries nothing."""
CUT_LEVELS, CUT_SHARE, CUT_LIKENESS = 25, 0.17, 0.9
"""A cut: that share of the picture changed by so many levels, and the two correlate less than this. Within the shots of
17 real clips at most 0.12 of the picture changed so; between two of them at least 0.21."""


@dataclass(frozen=True)
class FaceObservation:
    """Where the face is. `found` is False once it has been unseen for HOLD_FRAMES, or was never seen."""

    box: Box | None
    found: bool
    age_frames: int
    """Frames since the detector last confirmed the face."""
    empty: str = ""
    """Why the picture carries nothing: "dark" or "glare"; empty when it carries something."""
    cut: bool = False
    """Another shot begins with this picture."""


class FaceTracker:
    """One face over time; `step` once per picture."""

    def __init__(self, detector: Detector | None = None) -> None:
        self._detector: Detector = detector or HaarDetector()
        self._shots = _Shots()
        self._box: NDArray[np.float64] | None = None
        self._age = 0
        self._frame = -1
        self._cut_frame = -SEEK_EVERY_FRAMES
        self._shape: tuple[int, ...] = ()

    def step(self, picture: Picture | None) -> FaceObservation:
        """Look at the next picture [H, W, 3] RGB; None when the camera gave none."""
        self._frame += 1
        self._age += 1
        if self._age >= HOLD_FRAMES or (picture is not None and picture.shape != self._shape):
            self._box = None  # gone, or another camera mode: pixels mean something else
        if picture is None:
            return FaceObservation(None, False, self._age)
        self._shape = picture.shape
        empty, cut = self._shots.step(picture)
        if empty:
            return FaceObservation(None, False, self._age, empty)
        if self._due(cut):
            self._detect(picture)
        box = None if self._box is None else corners(self._box)
        return FaceObservation(box, box is not None, self._age, "", cut)

    def follow(self, box: Box, age_frames: int = 0) -> None:
        """From now on the face is the one in this box, last confirmed so long ago."""
        self._box, self._age = np.array(box, np.float64), age_frames

    def _due(self, cut: bool) -> bool:
        """Whether to search this picture; after a cut at once, but not at every picture of a series of cuts."""
        if cut:
            self._box, soon = None, self._frame < self._cut_frame + SEEK_EVERY_FRAMES
            self._cut_frame = self._cut_frame if soon else self._frame
            return not soon
        if self._box is not None:
            return self._frame % DETECT_EVERY_FRAMES == 0
        return self._frame % SEEK_EVERY_FRAMES == 0 or self._seeks_small_ones()

    def _seeks_small_ones(self) -> bool:
        return self._box is None and self._frame % (2 * SEEK_EVERY_FRAMES) >= SEEK_EVERY_FRAMES

    def _detect(self, picture: Picture) -> None:
        small, scale = shrink(picture)
        lost = self._box is None or self._age > 2 * DETECT_EVERY_FRAMES
        boxes = (self._search_all(small, scale) if lost else self._search_near(small, scale)) / scale
        boxes = boxes[np.array([self._plausible(box) for box in boxes], bool)]
        if not len(boxes):
            return
        chosen = boxes[self._nearest(boxes)]
        self._box, self._age = chosen if self._box is None else steadied(self._box, chosen), 0

    def _plausible(self, box: NDArray[np.float64]) -> bool:
        """Whether this can be the known face, or as good a one: a nostril or a pattern on the wall is much smaller."""
        if self._box is None or self._age >= HOLD_FRAMES // 2:
            return True
        return overlap(self._box, box) > 0.3 or box[2] - box[0] > 0.8 * (self._box[2] - self._box[0])

    def _search_all(self, small: Picture, scale: float) -> NDArray[np.float64]:
        """Faces of about the known size or more; without one, small ones too at every other look, for their cost."""
        if self._box is not None:
            least = max(LEAST_PX, int(0.6 * (self._box[2] - self._box[0]) * scale))
            return self._detector.find(small, least_px=least, effort="usual").boxes
        if self._seeks_small_ones() and self._frame != self._cut_frame:
            least, most = SMALL_BANDS[self._frame % SEEK_EVERY_FRAMES]
            return self._detector.find(small, least_px=least, most_px=most).boxes
        return self._detector.find(small, least_px=max(LEAST_PX, min(small.shape[:2]) // 6), effort="usual").boxes

    def _search_near(self, small: Picture, scale: float) -> NDArray[np.float64]:
        assert self._box is not None
        scaled = self._box * scale
        least, most = (int(share * (scaled[2] - scaled[0])) for share in NEAR_SIZES)
        return self._detector.find(small, around(scaled, 0.35), least_px=max(20, least), most_px=max(28, most)).boxes

    def _nearest(self, boxes: NDArray[np.float64]) -> int:
        """The face nearest to the known one; the largest when none is known."""
        if self._box is None:
            return int(np.argmax(boxes[:, 2] - boxes[:, 0]))
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        return int(np.argmin(np.linalg.norm(centres - (self._box[:2] + self._box[2:]) / 2, axis=1)))


class _Shots:
    """Which pictures carry nothing, and where a new shot begins; from the green of about 24 x 32 pixels of each."""

    def __init__(self) -> None:
        self._last = np.zeros((0, 0), np.int16)

    def step(self, picture: Picture) -> tuple[str, bool]:
        """(why the picture carries nothing, whether it begins another shot)."""
        rows, columns = max(picture.shape[0] // 24, 1), max(picture.shape[1] // 32, 1)
        thumb = picture[rows // 2 :: rows, columns // 2 :: columns, 1].astype(np.int16)
        few = thumb.size // 100
        ranked = np.partition(thumb, (few, -1 - few), axis=None)
        empty = _emptiness(int(ranked[few]), int(ranked[-1 - few]))
        if empty:
            return empty, False
        last, self._last = self._last, thumb
        return "", last.shape == thumb.shape and _is_cut(last, thumb)


def _emptiness(low: int, high: int) -> str:
    """Why nothing can be seen between these levels; "" when something can."""
    if high < EMPTY_LOW:
        return "dark"
    return "glare" if low > EMPTY_HIGH else ""


def _is_cut(last: NDArray[np.int16], now: NDArray[np.int16]) -> bool:
    if np.count_nonzero(np.abs(now - last) > CUT_LEVELS) < CUT_SHARE * now.size:
        return False
    a, b = last - last.mean(), now - now.mean()
    return float((a * b).sum()) < CUT_LIKENESS * float(np.sqrt((a * a).sum() * (b * b).sum()))


def shrink(picture: Picture) -> tuple[Picture, float]:
    """The picture at most SEARCH_PX wide or high, and its scale."""
    scale = min(1.0, SEARCH_PX / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, scale
    return np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8), scale


def steadied(known: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """The known box moved towards the one seen: a little when they nearly agree, all the way when it has moved."""
    weight = min(1.0, STEADY + 4 * float(np.abs(seen - known).max()) / (known[2] - known[0]))
    return (1 - weight) * known + weight * seen


def corners(box: NDArray[np.float64]) -> Box:
    """A box [4] as plain numbers."""
    left, top, right, bottom = (float(v) for v in box)
    return left, top, right, bottom


def around(box: NDArray[np.float64], margin: float) -> Region:
    """The box widened by a share of its width, in whole pixels, not beyond the picture's left and top."""
    left, top, right, bottom = (float(v) for v in box)
    wide = margin * (right - left)
    return max(0, int(left - wide)), max(0, int(top - wide)), int(right + wide), int(bottom + wide)


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
