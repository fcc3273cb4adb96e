"""A whole picture searched in portions is searched as in one go, and the tracker's boxes stay those of training."""

import functools
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deploy.faces import tracker
from deploy.faces.search import Asked, HaarSearch, portions
from deploy.faces.tracker import PacedTracker
from dyad.synthetic.face import FaceArtist
from dyad.synthetic.identity import Identity
from student.detect import STEP, Effort, Faces, HaarDetector
from student.face import HOLD_FRAMES, SMALL_BANDS, FaceObservation, FaceTracker, shrink

Picture = NDArray[np.uint8]
Place = tuple[int, int, int]


@functools.cache
def portrait(seed: int) -> Picture:
    rng = np.random.default_rng(seed)
    return FaceArtist(Identity.draw(rng, 224), rng).draw(np.zeros(17, np.float32), np.zeros(6, np.float32), 0)


def scene(*places: Place, size: tuple[int, int] = (640, 480), noise: int = 0) -> Picture:
    """A grey room [H, W, 3] with portraits at (left, top, side), and noise of so many levels."""
    room = np.full((size[1], size[0], 3), 110, np.uint8)
    for seed, (left, top, side) in enumerate(places, 3):
        face = cv2.resize(portrait(seed), (side, side), interpolation=cv2.INTER_AREA)[: size[1] - top, : size[0] - left]
        room[top : top + face.shape[0], left : left + face.shape[1]] = face
    return room + np.random.default_rng(0).integers(0, noise + 1, room.shape, dtype=np.uint8)


def searched(asked: Asked, *, frames: int, largest: bool = False) -> tuple[Faces, int]:
    """What a search finds, and in how many steps."""
    whole, steps = HaarSearch(), 0
    whole.begin(asked, frames=frames, largest=largest)
    while True:
        faces, steps = whole.step(), steps + 1
        if faces is not None:
            return faces, steps


SCENES = {
    "one": scene((200, 100, 240)),
    "two": scene((20, 150, 160), (340, 120, 260)),
    "at the edge": scene((260, 140, 380)),
    "small": scene((300, 200, 100), noise=9),
    "fills the picture": scene((0, 0, 224), size=(224, 224)),
    "nobody": scene(noise=30),
    "upright": scene((300, 600, 480), size=(1080, 1920)),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_search_in_portions_finds_to_the_last_digit_what_one_look_finds(name: str) -> None:
    small, _ = shrink(SCENES[name])
    kinds: list[tuple[Effort, int, int]] = [("usual", max(28, min(small.shape[:2]) // 6), 0)]
    for effort, least, most in [*kinds, *(("close", *band) for band in SMALL_BANDS)]:
        one = HaarDetector().find(small, least_px=least, most_px=most, effort=effort)
        for frames in (1, 3, 20):
            faces, steps = searched(Asked(small, least, most, effort), frames=frames)
            np.testing.assert_array_equal(faces.boxes, one.boxes)
            np.testing.assert_array_equal(faces.scores, one.scores)
            assert steps <= frames


@pytest.mark.parametrize("name", SCENES)
def test_whoever_wants_the_largest_face_only_gets_that_of_the_whole_search(name: str) -> None:
    small, _ = shrink(SCENES[name])
    asked = Asked(small, 28, 0, "usual")
    (whole, all_steps), (faces, steps) = searched(asked, frames=20), searched(asked, frames=20, largest=True)
    assert steps <= all_steps
    assert len(faces.boxes) == 0 if len(whole.boxes) == 0 else len(faces.boxes) > 0
    if len(whole.boxes):
        widest = [boxes[np.argmax(boxes[:, 2] - boxes[:, 0])] for boxes in (faces.boxes, whole.boxes)]
        np.testing.assert_array_equal(*widest)


def test_a_large_face_ends_the_search_early() -> None:
    asked = Asked(shrink(SCENES["at the edge"])[0], 28, 0, "usual")
    assert searched(asked, frames=20, largest=True)[1] < searched(asked, frames=20)[1]


@given(st.integers(1, 700), st.integers(1, 700), st.integers(20, 200), st.integers(0, 300), st.integers(1, 8))
@settings(max_examples=80, deadline=None)
def test_portions_hold_every_window_size_once_largest_first(
    height: int, width: int, least: int, most: int, frames: int
) -> None:
    parts = portions((height, width), STEP["usual"], least, most, frames)
    every = [round(24 * 1.15**k) for k in range(40)]
    top = min(height, width, most or height)
    assert [size for part in parts for size in part] == [s for s in reversed(every) if least <= s <= top]
    assert len(parts) <= frames
    assert all(parts)


def test_a_network_is_followed_by_the_tracker_of_training_itself() -> None:
    class Network:
        name = "network"

        def find(self, picture: Picture, region: Any = None, **how: Any) -> Faces:
            return Faces(np.array([[10.0, 20.0, 60.0, 70.0]]), np.ones(1))

    follower = tracker.of(Network())
    assert isinstance(follower, FaceTracker)
    assert follower.step(scene(size=(320, 240))).box == (10.0, 20.0, 60.0, 70.0), "in the first frame"
    assert isinstance(tracker.of(HaarDetector()), PacedTracker)


def paced() -> PacedTracker:
    return PacedTracker(HaarDetector())


def both(pictures: list[Picture | None]) -> tuple[list[FaceObservation], list[FaceObservation]]:
    """How the paced tracker and that of training see them."""
    ours, training = paced(), FaceTracker()
    return [ours.step(p) for p in pictures], [training.step(p) for p in pictures]


@pytest.mark.parametrize(
    ("place", "size"),
    [
        ((200, 100, 240), (640, 480)),
        ((80, 40, 224), (360, 288)),
        ((300, 600, 480), (1080, 1920)),
        ((700, 200, 260), (1280, 720)),
        ((200, 150, 400), (700, 700)),
    ],
)
def test_from_the_first_box_on_the_boxes_are_those_of_training(place: Place, size: tuple[int, int]) -> None:
    left, top, side = place
    moving: list[Picture | None] = [scene((left + 2 * t, top, side), size=size) for t in range(24)]
    ours, training = both(moving)
    first = next(t for t, seen in enumerate(ours) if seen.box)
    assert first < 5
    assert [seen.box for seen in ours[first:]] == [seen.box for seen in training[first:]]
    assert all(seen.box is None for seen in ours[:first])


def test_no_frame_searches_all_window_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []
    step = HaarSearch.step

    def counted(self: HaarSearch) -> Faces | None:
        spent.append(len(self._portions[0]) if self._portions else 0)
        return step(self)

    monkeypatch.setattr(HaarSearch, "step", counted)
    follower, room = paced(), scene(noise=9)
    frames = [follower.step(room) for _ in range(18)]
    assert not any(seen.box for seen in frames)
    assert len(spent) >= 16, "there is always something left to search"
    assert max(spent) < len(portions((240, 320), STEP["usual"], 40, 0, 1)[0])


def test_every_kind_of_search_gets_its_turn_while_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    begin = HaarSearch.begin

    def noted(self: HaarSearch, what: Asked, *, frames: int, largest: bool = False) -> None:
        asked.append((what.effort, what.most_px))
        assert 2 <= frames <= 3
        begin(self, what, frames=frames, largest=largest)

    monkeypatch.setattr(HaarSearch, "begin", noted)
    follower, room = paced(), scene(noise=9)
    for _ in range(48):
        follower.step(room)
    kinds = {("usual", 0), *(("close", most) for _, most in SMALL_BANDS)}
    assert all(set(asked[k : k + 4]) == kinds for k in range(0, 12, 4))


def test_a_face_that_jumps_is_found_again_within_a_look_of_training() -> None:
    pictures: list[Picture | None] = [scene((20, 100, 220))] * 10 + [scene((400, 200, 220))] * 40
    seen = both(pictures)
    there = [next(t for t, s in enumerate(way) if s.box and s.box[0] > 300) for way in seen]
    assert there[1] <= there[0] <= there[1] + 5
    assert all(s.found for s in seen[0][3:])
    np.testing.assert_allclose(np.array(seen[0][-1].box), np.array(seen[1][-1].box), atol=220 / 30)


@pytest.mark.parametrize("cut_after", range(8, 22))
def test_what_was_found_in_one_shot_is_not_followed_in_the_next(cut_after: int) -> None:
    blocks = np.random.default_rng(0).integers(30, 225, (8, 10, 3), dtype=np.uint8)
    other = np.asarray(cv2.resize(blocks, (640, 480)), np.uint8)
    pictures = [scene((20, 100, 220))] * 10 + [scene((400, 200, 220))] * cut_after + [other] * 10
    follower = paced()
    seen = [follower.step(p) for p in pictures]
    assert seen[10 + cut_after].cut
    assert all(s.box is None for s in seen[10 + cut_after :])


def test_a_camera_may_fill_the_same_memory_again_during_a_search() -> None:
    memory, follower = scene((40, 40, 200), size=(320, 240)), paced()
    want = FaceTracker().step(memory).box
    seen = [follower.step(memory)]
    memory[:] = 110
    memory[::7, ::5] += 9
    seen += [follower.step(memory) for _ in range(3)]
    assert want in [s.box for s in seen]


def test_a_search_waits_while_the_camera_gives_nothing_and_ends_afterwards() -> None:
    room, follower = scene((200, 100, 240)), paced()
    gaps: list[Picture | None] = [room, None, room, None, room, None, room]
    seen = [follower.step(p) for p in gaps]
    assert any(s.found for s in seen)
    assert not any(s.found for s, p in zip(seen, gaps, strict=True) if p is None)


def test_whoever_is_told_whom_to_follow_drops_the_search() -> None:
    follower = paced()
    follower.step(scene((20, 150, 160), (340, 120, 260)))
    follower.follow((52.0, 178.0, 148.0, 274.0))
    seen = [follower.step(scene((20, 150, 160), (340, 120, 260))) for _ in range(HOLD_FRAMES)]
    assert all(s.box and s.box[0] < 200 for s in seen)
