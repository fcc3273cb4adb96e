"""The search for everybody: a slice at a time, all of them in two seconds, less where nothing changes."""

from typing import Any

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deploy.faces.sweep import LEAST_PX, ORDER, SLICES, Sweep
from dyad.clock import FPS
from dyad.synthetic.face import FaceArtist
from dyad.synthetic.identity import Identity
from student.detect import NOBODY, Faces, HaarDetector

Picture = NDArray[np.uint8]


def portrait(seed: int) -> Picture:
    rng = np.random.default_rng(seed)
    return FaceArtist(Identity.draw(rng, 224), rng).draw(np.zeros(17, np.float32), np.zeros(6, np.float32), 0)


@given(st.integers(30, 220), st.floats(0, 1), st.floats(0, 1), st.sampled_from([(240, 320), (320, 180), (320, 320)]))
@settings(max_examples=60, deadline=None)
def test_the_sweep_covers_every_face_once_in_two_seconds_and_large_ones_every_second(
    face: int, x: float, y: float, size: tuple[int, int]
) -> None:
    side = min(face * min(size) // 240, *size)
    left, top = int(x * (size[1] - side)), int(y * (size[0] - side))

    class Asked:
        name, covered = "asked", 0

        def find(self, picture: Picture, region: Any = None, *, least_px: int, most_px: int, effort: str) -> Faces:
            x0, y0, x1, y1 = region or (0, 0, picture.shape[1], picture.shape[0])
            within = x0 <= left and left + side <= x1 and y0 <= top and top + side <= y1
            self.covered += within and least_px <= side <= (most_px or np.inf)
            return NOBODY

    def swept(frames: int) -> int:
        before, due = asked.covered, 0
        for _ in range(frames):
            picture[:] += 37  # something has changed
            if sweep.is_due():
                sweep.step(picture)
                due += 1
        assert due == (frames if frames == len(SLICES) else len(ORDER) * frames // (2 * FPS))
        return asked.covered - before

    asked, picture = Asked(), np.zeros((*size, 3), np.uint8)
    sweep = Sweep(asked)
    large_enough = side >= int(max(0.135 * min(size), LEAST_PX))
    assert bool(swept(len(SLICES))) is large_enough, "the first time all slices at once"
    assert bool(swept(2 * FPS)) is large_enough
    if side >= 0.22 * min(size):
        assert swept(FPS)
        assert swept(FPS)


def test_the_sweep_sees_no_known_face_a_sought_one_and_whoever_is_new() -> None:
    room = np.full((240, 320, 3), 110, np.uint8)
    room[60:160, 20:120] = cv2.resize(portrait(3), (100, 100))
    room[60:160, 190:290] = cv2.resize(portrait(5), (100, 100))
    known, as_it_was = np.array([33.0, 76.0, 106.0, 149.0]), room.copy()

    def seen(**boxes: list[NDArray[np.float64]]) -> set[str]:
        sweep = Sweep(HaarDetector())
        found = [sweep.step(room, **boxes).boxes for _ in SLICES]
        return {"left" if (box[0] + box[2]) / 2 < 160 else "right" for box in np.concatenate(found)}

    assert seen() == {"left", "right"}
    assert seen(known=[known]) == {"right"}
    assert seen(sought=[known]) == {"left", "right"}
    assert seen(known=[known + 900]) == {"left", "right"}, "a face that left the picture hides nothing"
    np.testing.assert_array_equal(room, as_it_was)


def test_the_sweep_rests_where_nothing_has_changed_beside_the_known_faces() -> None:
    looks: list[int] = []

    class Counted:
        name = "counted"

        def find(self, picture: Picture, region: Any = None, **_how: Any) -> Faces:
            looks.append(1)
            return NOBODY

    known, quiet = np.array([100.0, 60.0, 180.0, 140.0]), np.full((240, 320, 3), 90, np.uint8)
    talking, entered = quiet.copy(), quiet.copy()
    talking[40:, 40:240] = 160
    entered[100:130, 260:290] = 160

    def spent(picture: Picture, **boxes: list[NDArray[np.float64]]) -> int:
        before = len(looks)
        for _ in ORDER:
            sweep.step(picture, **boxes)
        return len(looks) - before

    sweep = Sweep(Counted())
    for _ in SLICES:
        sweep.step(quiet, [known])
    assert len(looks) == len(SLICES)
    assert spent(quiet, known=[known]) == 0
    assert spent(talking, known=[known]) < len(ORDER), "the known face's own motion"
    assert spent(entered, known=[known]) == len(SLICES), "somebody new: each slice once"
    assert 0 < sum(spent(entered, known=[known]) for _ in range(6)) < 18, "now and then all the same"
    assert spent(entered, sought=[known]) == len(ORDER)
    sweep.hurry()
    assert spent(entered, known=[known]) >= len(SLICES), "another shot"
