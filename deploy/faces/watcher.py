"""Whom the robot watches: in place of `Frontend.look`, once per frame of the loop.

With one face in view, the box is that of `student.face`, as in training: the same object makes it. With several, the
same tracker is told whom to follow: who speaks, and the same person still after two have crossed. Nothing is ever cut
from a picture that carries nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.faces import detectors, embedding, tracker
from deploy.faces.anchors import Register
from deploy.faces.config import FacesConfig
from deploy.faces.flow import Grey, moved
from deploy.faces.people import People, Sighting, Track
from deploy.faces.speaker import SpeakerChoice
from deploy.faces.sweep import Sweep
from deploy.faces.view import View
from deploy.faces.voice import VoiceActivity
from dyad.clock import FPS
from student.detect import Faces, Picture
from student.face import (
    DETECT_EVERY_FRAMES,
    HOLD_FRAMES,
    Box,
    FaceObservation,
    around,
    corners,
    overlap,
)

LOOK_EVERY_FRAMES, NEW_EVERY_FRAMES, MISSED_EVERY_FRAMES = 10, 2, 4
"""Between looks at a known face that is not watched, at one not yet sure, and at one that the last look missed."""
STILL_ROWS = 60
"""Of a picture are compared with the one before, to see whether it is another."""
SAME_FACE = 0.3
"""Boxes that overlap by more show the same face."""
SIZES = (0.75, 1.35)
"""Sizes looked for near a face, in widths of its box."""


@dataclass(frozen=True)
class Person:
    """Somebody in view: number (the same when they come back), box, how much they seem to speak (about 0…1)."""

    number: int
    box: Box
    speaking: float


@dataclass(frozen=True)
class Watched:
    """What the loop needs of one frame: `box` and `found` as from `Frontend.look`.

    Flags: no_face, no_picture, dark, glare, frozen, cut, bad_sound.
    """

    box: Box | None
    found: bool
    person: int | None
    people: tuple[Person, ...]
    flags: tuple[str, ...]


class Watcher:
    """Follows everybody, chooses whom to watch; `step` once per frame."""

    def __init__(self, config: FacesConfig | None = None) -> None:
        self.config = config = config or FacesConfig()
        self._detector = detectors.load(config.detector, config.detector_model)
        self._tracker = tracker.of(self._detector)
        register = Register(embedding.load(config.embedding, config.embedding_model), config.remember_s)
        self._people = People(register, config.max_people)
        self._sweep = Sweep(self._detector)
        self.choice = SpeakerChoice(config.switch_s, config.switch_margin)
        self._voice = VoiceActivity()
        self._still = _Still(round(config.frozen_s * FPS))
        self._before: Grey | None = None
        self._watched: int | None = None
        self._frame = -1
        self.refused_sounds = 0
        """Audio windows that were not finite."""
        blank = np.zeros((60, 80), np.uint8)
        moved(blank, blank, [np.array([20.0, 10.0, 60.0, 50.0])])  # OpenCV's first call takes longer than a frame

    def step(self, picture: Picture | None, audio_window: NDArray[np.float32]) -> Watched:
        """Look at the next picture [H, W, 3] RGB (None: the camera gave none) and hear its audio window [800]."""
        self._frame += 1
        flags = self._hear(audio_window)
        frozen = self._still.step(picture)
        seen = self._tracker.step(None if frozen else picture)
        box = seen.box
        if self.config.several:
            box = self._look_around(picture, seen, frozen)
        flags += [seen.empty] * bool(seen.empty) + ["cut"] * seen.cut + ["frozen"] * frozen
        flags += ["no_picture"] * (picture is None) + ["no_face"] * (box is None)
        return Watched(box, box is not None, self._watched, self._everybody(), tuple(flags))

    def _hear(self, window: NDArray[np.float32]) -> list[str]:
        """Take in the sound; broken sound is no sound."""
        good = bool(np.isfinite(window).all())
        self.refused_sounds += not good
        if self.config.several:
            activity = self._voice.step(window if good else np.zeros_like(window))
            self.choice.hear(activity, self._voice.level_db)
        return [] if good else ["bad_sound"]

    def _look_around(self, picture: Picture | None, seen: FaceObservation, frozen: bool) -> Box | None:
        """Bring everybody up to date; the box of whoever is to be watched."""
        if picture is None or seen.empty or frozen:
            self._people.move([None] * len(self._people.tracks))
            self._before = None
            return seen.box
        view = View(picture)
        if seen.cut:
            self._people.clear()
            self.choice.forget()
            self._sweep.hurry()
            self._before = None
        self._people.move(self._flow(view))
        self._compare_mouths(view)
        self._people.meet(picture, self._sightings(view, seen))
        known = self._people.known
        if len(known) > 1:
            self.choice.settle(view.grey, {n: t.box * view.scale for n, t in known.items() if not t.unseen_frames})
        self._before = view.grey if len(self._people.tracks) > 1 else None
        return self._decide(seen, known)

    def _compare_mouths(self, view: View) -> None:
        """With several in view, see whose mouth moves."""
        boxes = {n: t.box * view.scale for n, t in self._people.known.items()}
        if len(boxes) > 1:
            self.choice.watch(view.grey, boxes)
        else:
            self.choice.forget()

    def _flow(self, view: View) -> list[NDArray[np.float64] | None]:
        """How each face moved, in pixels of the picture; alone, a face is followed by detection only."""
        tracks = self._people.tracks
        if self._before is None or len(tracks) < 2 or self._before.shape != view.grey.shape:
            return [None] * len(tracks)
        steps = moved(self._before, view.grey, [t.box * view.scale for t in tracks])
        return [None if step is None else step / view.scale for step in steps]

    def _sightings(self, view: View, seen: FaceObservation) -> list[Sighting]:
        """Detections of one frame, in pixels of the picture: the watched face's own, else one search at most."""
        if seen.box is None:
            return []
        if seen.age_frames == 0:
            return [Sighting(np.array(seen.box), 0.0)]
        for track in self._due(seen):
            return _sighted(self._near(view.small, track.box * view.scale), view.scale, rough=False)
        if not self._sweep.is_due():
            return []
        boxes: tuple[list[NDArray[np.float64]], ...] = [], []
        for track in self._people.tracks:
            boxes[self._people.needs_a_search(track)].append(track.box * view.scale)
        return _sighted(self._sweep.step(view.small, *boxes), view.scale, rough=True)

    def _due(self, seen: FaceObservation) -> list[Track]:
        """Who is to be looked at in this frame: one at most; the watched face has its own detection."""
        for k, track in enumerate(self._people.tracks):
            every = LOOK_EVERY_FRAMES if track.number is not None else NEW_EVERY_FRAMES
            if track.hidden or track.unseen_frames > LOOK_EVERY_FRAMES:
                every = MISSED_EVERY_FRAMES
            own = seen.box is not None and overlap(np.array(seen.box), track.box) > SAME_FACE
            own = own and track.unseen_frames <= DETECT_EVERY_FRAMES
            if not own and (self._frame + 3 * k + 1) % every == 0:
                track.looks += 1
                return [track]
        return []

    def _near(self, small: Picture, box: NDArray[np.float64]) -> Faces:
        least, most = (int(share * (box[2] - box[0])) for share in SIZES)
        region = around(box, 0.35)
        return self._detector.find(small, region, least_px=max(least, 20), most_px=max(most, 28), effort="usual")

    def _decide(self, seen: FaceObservation, known: dict[int, Track]) -> Box | None:
        """Keep to the watched person, or turn to who speaks."""
        if seen.box is None:
            return None
        shares = {n: overlap(t.box, np.array(seen.box)) for n, t in known.items()}
        here = max((n for n, share in shares.items() if share > SAME_FACE), key=lambda n: shares[n], default=None)
        if self._watched not in known:
            if here is not None:
                self._watched = here
            return seen.box
        chosen, track = self.choice.choose(self._watched), known[self._watched]
        if chosen != self._watched:
            self._watched = chosen
            return self._turn_to(known[chosen])
        if here in (None, self._watched) or track.hidden or shares[self._watched] > SAME_FACE:
            return seen.box
        if track.unseen_frames <= LOOK_EVERY_FRAMES:  # the tracker has slipped to somebody else
            return self._turn_to(track)
        if track.unseen_frames >= HOLD_FRAMES // 2 and not track.crossed:
            self._watched = here
        return seen.box

    def _turn_to(self, track: Track) -> Box:
        box = corners(track.box)
        self._tracker.follow(box, track.unseen_frames)
        return box

    def _everybody(self) -> tuple[Person, ...]:
        scores = self.choice.scores()
        return tuple(Person(n, corners(t.box), scores.get(n, 0.0)) for n, t in sorted(self._people.known.items()))


class _Still:
    """Whether the camera hands in one and the same picture; by some of its rows, noise makes any two differ there."""

    def __init__(self, frames: int) -> None:
        self._frames, self._same = frames, 0
        self._last: Picture = np.zeros((0, 0, 3), np.uint8)

    def step(self, picture: Picture | None) -> bool:
        """True once a picture has been repeated for long enough."""
        if picture is None:
            self._same = 0
            return False
        rows = picture[:: max(len(picture) // STILL_ROWS, 1)].copy()  # a copy: some cameras fill the same memory again
        self._same = self._same + 1 if np.array_equal(rows, self._last) else 0
        self._last = rows
        return self._same >= self._frames


def _sighted(faces: Faces, scale: float, *, rough: bool) -> list[Sighting]:
    """Detections at the detector's scale as sightings in pixels of the picture."""
    points = [None] * len(faces.boxes) if faces.points is None else list(faces.points / scale)
    rows = zip(faces.boxes / scale, faces.scores, points, strict=True)
    return [Sighting(box, float(score), point, rough) for box, score, point in rows]
