"""The tracker of training, except that a search of the whole picture takes several frames instead of one.

Everything else is `student.face.FaceTracker` itself, on the same pictures: once a search that it asked for has found
the face, the boxes are to the last digit those that it would have by then; until then there is no face. A known face
that was missed keeps its box until the tracker asks again, five frames later, and is told what was found meanwhile.
Looks near a known face are made at once.
"""

import numpy as np

from deploy.faces.search import Asked, HaarSearch
from student.detect import NOBODY, Detector, Effort, Faces, HaarDetector, Picture, Region
from student.face import SEARCH_PX, Box, FaceObservation, FaceTracker, corners

AT_ONCE = {("usual", 0): 3, ("close", 0): 2}
"""Kind of search → frames that its first one may take: the tracker of training begins the next kind after three frames,
and looks at a face that it has found five frames after the first."""
PATIENT = 3
"""The same for all others."""


def of(detector: Detector) -> "FaceTracker | PacedTracker":
    """The tracker that suits a detector: a network looks for all sizes at once, there is nothing to divide."""
    return PacedTracker(detector) if isinstance(detector, HaarDetector) else FaceTracker(detector)


class PacedTracker:
    """One face over time, as FaceTracker; `age_frames` is 0 whenever the detector's word is new in this frame."""

    def __init__(self, detector: HaarDetector) -> None:
        self._questions = _Questions(detector)
        self._tracker = FaceTracker(self._questions)
        self._searches = _Searches(HaarSearch())
        self._frame = -1
        self._shape: tuple[int, ...] = ()

    def step(self, picture: Picture | None) -> FaceObservation:
        """Look at the next picture [H, W, 3] RGB; None when the camera gave none."""
        self._frame += 1
        seen = self._tracker.step(picture)
        if picture is None or seen.empty:
            return seen
        if seen.cut or picture.shape != self._shape or (seen.box and seen.age_frames == 0):
            self._forget()
        self._shape = picture.shape
        self._searches.ask(self._frame, self._questions.take())
        found = self._searches.step(self._frame, largest=seen.box is None)
        if not len(found.boxes):
            return seen
        if seen.box is not None:
            self._questions.answer(self._searches.asked, found)
            return seen
        return self._begin_with(found, picture, cut=seen.cut)

    def follow(self, box: Box, age_frames: int = 0) -> None:
        """From now on the face is the one in this box, last confirmed so long ago."""
        self._forget()
        self._tracker.follow(box, age_frames)

    def _forget(self) -> None:
        """What was searched for is found, or can no longer be there."""
        self._searches.forget()
        self._questions.forget()

    def _begin_with(self, found: Faces, picture: Picture, *, cut: bool) -> FaceObservation:
        """Follow the largest face found, in the picture as it was when the search began."""
        boxes = found.boxes / min(1.0, SEARCH_PX / max(picture.shape[:2]))
        box = corners(boxes[int(np.argmax(boxes[:, 2] - boxes[:, 0]))])
        self.follow(box, self._frame - self._searches.of_frame)
        return FaceObservation(box, True, 0, "", cut)


class _Questions:
    """What the tracker takes for its detector: looks near a face are made at once, the whole picture is asked for."""

    def __init__(self, detector: Detector) -> None:
        self.name = detector.name
        self._detector = detector
        self._asked: Asked | None = None
        self._answer: tuple[Asked, Faces] | None = None

    def find(
        self,
        picture: Picture,
        region: Region | None = None,
        *,
        least_px: int = 28,
        most_px: int = 0,
        effort: Effort = "close",
    ) -> Faces:
        """See Detector."""
        if region is not None:
            return self._detector.find(picture, region, least_px=least_px, most_px=most_px, effort=effort)
        asked, answer = Asked(picture, least_px, most_px, effort), self._answer
        self._answer = None
        if answer is not None and asked.is_like(answer[0]):
            return answer[1]
        self._asked = Asked(picture.copy(), least_px, most_px, effort)  # the camera may fill its memory again
        return NOBODY

    def answer(self, asked: Asked, found: Faces) -> None:
        """What to say when the tracker asks for the same in the next picture, a known but missed face."""
        self._answer = asked, found

    def forget(self) -> None:
        """The answer is of no use any more."""
        self._answer = None

    def take(self) -> Asked | None:
        """What was asked for since the last call."""
        asked, self._asked = self._asked, None
        return asked


class _Searches:
    """One search after another; of each kind waits at most the newest, and they take turns."""

    def __init__(self, search: HaarSearch) -> None:
        self._search = search
        self._waiting: dict[tuple[str, int], tuple[int, Asked]] = {}
        self._begun: dict[tuple[str, int], int] = {}
        self._busy = False
        self.of_frame = 0
        """Which frame's picture is or was searched."""
        self.asked = Asked(np.zeros((1, 1, 3), np.uint8), 0, 0, "usual")
        """And for what."""

    def forget(self) -> None:
        """Give up what is being searched for and what waits."""
        self._busy = False
        self._waiting.clear()
        self._begun.clear()

    def ask(self, frame: int, asked: Asked | None) -> None:
        """Put a search on the list."""
        if asked is not None:
            self._waiting[asked.effort, asked.most_px] = frame, asked

    def step(self, frame: int, *, largest: bool) -> Faces:
        """One frame's share of the search under way, or of the next one; nobody until a search has ended."""
        if not self._busy:
            if not self._waiting:
                return NOBODY
            kind = min(self._waiting, key=lambda k: self._begun.get(k, -1))
            self.of_frame, self.asked = self._waiting.pop(kind)
            frames = PATIENT if kind in self._begun else AT_ONCE.get(kind, PATIENT)
            self._search.begin(self.asked, frames=frames, largest=largest)
            self._begun[kind], self._busy = frame, True
        found = self._search.step()
        self._busy = found is None
        return found or NOBODY
