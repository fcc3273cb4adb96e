"""Everybody in view over time: which face of this picture is which face of the last.

A detection belongs to the track that it overlaps, that was moving there and that looks like it. Between detections a
face moves with the optical flow inside it, or straight on while another face is in the way. Numbers belong to persons:
a face that comes back, or two that have crossed, are told by their looks (`anchors`).

Boxes [4] are left, top, right, bottom in pixels of the picture.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deploy.faces.anchors import SHARP, Register, is_frontal, sharpness
from deploy.faces.embedding import Vector, crop_of
from dyad.clock import FRAME_S
from student.detect import Picture
from student.face import DETECT_EVERY_FRAMES, HOLD_FRAMES, overlap, steadied

BoxArray = NDArray[np.float64]

SURE_HITS, TRIES = 3, 6
"""A new face is believed when it was seen so often among so many looks."""
GATE = 0.1
"""Least overlap of a detection with where a track should be."""
APART = 0.08
"""Two boxes that overlap by less are not in each other's way."""
COVERED_AFTER_FRAMES = 5
"""A face with another one in its way that was not seen for so long is behind it."""
STRAIGHT_ON = 0.98
"""Share of its velocity that an unseen face keeps from frame to frame."""
SWAP_GAIN = 0.01
"""How much better the looks must fit, in cosines, for two numbers to be exchanged after a crossing."""
LEARN_EVERY_FRAMES = 15
JUDGE_EVERY_FRAMES = 60
"""A face that is followed closely is still to be judged so often by a search, for its looks to be learnt."""
ROUGH_AFTER_FRAMES = 10
"""A rough sighting moves only the box of a face that was not seen better for so long."""


@dataclass(frozen=True)
class Sighting:
    """One detected face: box [4], score in [0, 1], landmarks [5, 2] where there are any."""

    box: BoxArray
    score: float
    points: NDArray[np.float64] | None = None
    rough: bool = False
    """Somewhere about here: a quick search of the whole picture."""


@dataclass
class Track:
    """One face in view."""

    box: BoxArray
    number: int | None = None
    """Whose face it is, once known."""
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Pixels per frame."""
    hits: int = 1
    looks: int = 1
    unseen_frames: int = 0
    hidden: bool = False
    """Another face is in the way."""
    crossed: set[int] = field(default_factory=set)
    """Who was, since the looks were last compared."""
    learnt_frame: int = -LEARN_EVERY_FRAMES
    judged_frame: int = -JUDGE_EVERY_FRAMES
    """When a search last gave it a score."""


class People:
    """Tracks and their numbers."""

    def __init__(self, register: Register, most: int) -> None:
        self.register, self._most = register, most
        self.tracks: list[Track] = []
        self._frame = 0

    @property
    def now_s(self) -> float:
        """Seconds since the first picture."""
        return self._frame * FRAME_S

    @property
    def known(self) -> dict[int, Track]:
        """Number → track of everybody in view."""
        return {t.number: t for t in self.tracks if t.number is not None}

    def move(self, steps: Iterable[NDArray[np.float64] | None]) -> None:
        """A frame has passed: move every track by its flow (pixels; None where it was lost)."""
        self._frame += 1
        for track, step in zip(self.tracks, steps, strict=True):
            track.unseen_frames += 1
            if step is None or (track.hidden and track.unseen_frames > COVERED_AFTER_FRAMES):
                step = track.velocity
                track.velocity = STRAIGHT_ON * track.velocity
            elif not track.hidden:  # else some of the flow is the other face's
                track.velocity = 0.8 * track.velocity + 0.2 * step
            track.box = track.box + np.concatenate([step, step])
        self.tracks = [t for t in self.tracks if self._may_stay(t)]
        self._mark_hidden()

    def needs_a_search(self, track: Track) -> bool:
        """Whether a search may tell something new of this face, which is else followed closely, alone and known."""
        followed = track.unseen_frames <= DETECT_EVERY_FRAMES and not track.hidden and not track.crossed
        known = track.number is not None and self.register.looks(track.number) > 0
        return not followed or not known or self._frame >= track.judged_frame + JUDGE_EVERY_FRAMES

    def meet(self, picture: Picture, sightings: list[Sighting]) -> None:
        """Take in this picture's detections."""
        sightings = _distinct(sightings)
        pairs = self._assign(picture, sightings)
        for track, seen in pairs:
            if not seen.rough or track.unseen_frames > ROUGH_AFTER_FRAMES:
                track.box = steadied(track.box, seen.box)
            track.unseen_frames = 0 if not seen.rough else min(track.unseen_frames, ROUGH_AFTER_FRAMES)
            track.hits += track.number is None
            self._look(picture, track, seen)
        taken = {id(seen) for _, seen in pairs}
        for seen in sightings:
            part = any(_is_part(seen.box, track.box) for track in self.tracks)
            if id(seen) not in taken and not part and len(self.tracks) < self._most:
                self.tracks.append(Track(seen.box))
        self._uncross(picture)

    def clear(self) -> None:
        """Another shot: nobody is where they were; who they are is still known."""
        self.tracks = []

    def _may_stay(self, track: Track) -> bool:
        patience = 2 * HOLD_FRAMES if track.hidden or track.crossed else HOLD_FRAMES
        sure = track.number is not None or track.looks < TRIES or track.hits >= SURE_HITS
        return sure and track.unseen_frames < patience

    def _mark_hidden(self) -> None:
        for track in self.tracks:
            others = [t for t in self.tracks if t is not track and overlap(t.box, track.box) > APART]
            track.hidden = bool(others)
            track.crossed |= {t.number for t in others if t.number is not None}

    def _assign(self, picture: Picture, sightings: list[Sighting]) -> list[tuple[Track, Sighting]]:
        """Pairs, the surest first; looks decide where several tracks are near."""
        ranked: list[tuple[float, int, int]] = []
        for j, seen in enumerate(sightings):
            near = [(i, overlap(t.box, seen.box)) for i, t in enumerate(self.tracks)]
            near = [(i, share) for i, share in near if share > GATE]
            vector = _vector(self.register, picture, seen.box) if len(near) > 1 else None
            ranked += [(share + self._fit(self.tracks[i], vector), i, j) for i, share in near]
        pairs: list[tuple[Track, Sighting]] = []
        free_i, free_j = set(range(len(self.tracks))), set(range(len(sightings)))
        for _, i, j in sorted(ranked, reverse=True):
            if i in free_i and j in free_j:
                free_i.remove(i)
                free_j.remove(j)
                pairs.append((self.tracks[i], sightings[j]))
        return pairs

    def _fit(self, track: Track, vector: Vector | None) -> float:
        """0…1: how well a look fits the track's person."""
        if vector is None or track.number is None:
            return 0.0
        known = self.register.embedding
        likeness = self.register.likeness(track.number, vector)
        return float(np.clip((likeness - known.other) / (known.same - known.other), 0, 1))

    def _look(self, picture: Picture, track: Track, seen: Sighting) -> None:
        """Give a sure face its number, and remember good looks of it now and then."""
        if track.number is None:
            if track.hits < SURE_HITS:
                return
            vector = _vector(self.register, picture, track.box)
            who, certain = self.register.recognise(vector, self.register.absent(set(self.known)))
            if not certain and track.hits < SURE_HITS + TRIES:
                return
            track.number = who if who is not None else self.register.newcomer(self.now_s)
        self.register.see(track.number, self.now_s)
        track.judged_frame = self._frame if seen.score else track.judged_frame
        due = self._frame >= track.learnt_frame + LEARN_EVERY_FRAMES
        if due and not track.hidden and not track.crossed and is_frontal(seen.score, seen.points):
            crop = crop_of(picture, track.box)
            if sharpness(crop) >= SHARP:
                track.learnt_frame = self._frame
                self.register.see(track.number, self.now_s, self.register.embedding.embed(crop))

    def _uncross(self, picture: Picture) -> None:
        """Two who have passed each other: exchange their numbers if their looks fit better so."""
        for track in self.tracks:
            if track.hidden or track.unseen_frames or track.number is None or not track.crossed:
                continue
            vector = _vector(self.register, picture, track.box)
            mine = self.register.likeness(track.number, vector)
            present = self.known
            rivals = {n: self.register.likeness(n, vector) for n in track.crossed if n != track.number}
            best = max(rivals, key=lambda n: rivals[n], default=track.number)
            if rivals and rivals[best] > mine + SWAP_GAIN:
                if best in present:
                    present[best].number = track.number
                track.number = best
            track.crossed = set()


def _vector(register: Register, picture: Picture, box: BoxArray) -> Vector:
    return register.embedding.embed(crop_of(picture, box))


def _is_part(box: BoxArray, face: BoxArray) -> bool:
    """Whether the box is an eye or a mouth of that face: much smaller, and inside."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    within = face[0] < x < face[2] and face[1] < y < face[3]
    return bool(within and box[2] - box[0] < 0.6 * (face[2] - face[0]))


def _distinct(sightings: list[Sighting]) -> list[Sighting]:
    """Without the second of two that show the same face."""
    kept: list[Sighting] = []
    for seen in sightings:
        if all(overlap(seen.box, other.box) < 0.4 for other in kept):
            kept.append(seen)
    return kept
