"""What lies before the graph: find the face, crop it, cut the audio window.

Training and the loop call this very code, so that both feed the same bytes. Numpy and OpenCV only; causal: frame t
sees the pictures up to t and the samples before `clock.audio_end(t)`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dyad import clock, media
from student.detect import Detector
from student.face import Box, FaceTracker
from student.spec import StudentSpec

CROP_SCALE = 1.25
"""Side of the crop relative to the detector's box."""
CROP_DROP = 0.06
"""How far below the box's centre the crop's centre lies, in box heights: the chin stays inside."""
SILENCE = 1e-5
"""A window whose largest sample is below this holds digital silence: there is no sound to hear."""


@dataclass(frozen=True)
class StepInput:
    """One frame for the student: crop [h, w, 3] uint8, audio [800] float32, present [2] (face, sound)."""

    frame: NDArray[np.uint8]
    audio: NDArray[np.float32]
    present: NDArray[np.float32]
    box: Box | None


def audio_window(audio: NDArray[np.float32], frame: int, spec: StudentSpec) -> NDArray[np.float32]:
    """The `audio_window_samples` that end with `frame`, zeros before the start and after the end of the sound."""
    stop = clock.audio_end(frame)
    start = stop - spec.audio_window_samples
    window = np.zeros(spec.audio_window_samples, np.float32)
    piece = audio[max(start, 0) : stop]
    offset = max(-start, 0)
    window[offset : offset + len(piece)] = piece
    return window


def crop_face(picture: NDArray[np.uint8], box: Box | None, size_px: int) -> NDArray[np.uint8]:
    """Square crop [size, size, 3] around the face; around the picture's centre when there is none."""
    height, width = picture.shape[:2]
    if box is None:
        side = float(min(height, width))
        centre = (width / 2, height / 2)
    else:
        side = CROP_SCALE * max(box[2] - box[0], box[3] - box[1])
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + CROP_DROP * (box[3] - box[1]))
    x0, y0 = round(centre[0] - side / 2), round(centre[1] - side / 2)
    x1, y1 = x0 + max(round(side), 2), y0 + max(round(side), 2)
    inside = picture[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    pads = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
    if any(pads):
        inside = cv2.copyMakeBorder(inside, *pads, cv2.BORDER_REPLICATE)
    way = cv2.INTER_AREA if inside.shape[0] > size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(inside, (size_px, size_px), interpolation=way), np.uint8)


class Frontend:
    """The eyes' and ears' first stage over one stream; `step` once per frame."""

    def __init__(self, spec: StudentSpec, detector: Detector | None = None) -> None:
        self._spec = spec
        self._tracker = FaceTracker(detector)
        self._blank = np.zeros((spec.crop_px, spec.crop_px, 3), np.uint8)

    def look(self, picture: NDArray[np.uint8] | None) -> tuple[Box | None, bool]:
        """Box of the face in the next picture, and whether there is one."""
        seen = self._tracker.step(picture)
        return seen.box, seen.found

    def pack(self, picture: NDArray[np.uint8] | None, box: Box | None, window: NDArray[np.float32]) -> StepInput:
        """The student's input from a picture, its face box and the audio window [800]."""
        frame = self._blank if picture is None else crop_face(picture, box, self._spec.crop_px)
        heard = bool(SILENCE < np.abs(window).max() < np.inf)
        if not np.isfinite(window).all():  # a broken microphone driver may hand in NaN
            window = np.zeros_like(window)
        return StepInput(frame, window, np.array([box is not None, heard], np.float32), box)

    def step(self, picture: NDArray[np.uint8] | None, window: NDArray[np.float32]) -> StepInput:
        """Look and pack: picture [H, W, 3] RGB (None when the camera has failed) and audio window [800]."""
        box, _ = self.look(picture)
        return self.pack(picture, box, window)


def iter_session(video: Path, audio: NDArray[np.float32], spec: StudentSpec) -> Iterator[StepInput]:
    """Step through a recording as the loop would."""
    front = Frontend(spec)
    for t, picture in media.iter_grid_frames(video):
        yield front.step(picture, audio_window(audio, t, spec))


def process_session(
    video: Path, audio_path: Path, spec: StudentSpec
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """A whole recording: crops [T, h, w, 3], sound [S], present [T, 2]."""
    sound = media.read_audio(audio_path, spec.sample_rate_hz)
    steps = [(s.frame, s.present) for s in iter_session(video, sound, spec)]
    return np.stack([f for f, _ in steps]), sound, np.stack([p for _, p in steps])
