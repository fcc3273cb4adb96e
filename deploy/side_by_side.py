"""The run as a video: the speaker, the robot's head from its joint sensors, and the 17 units it was asked to show.

Made after the loop, from its trace, so that drawing never costs a tick. Pictures are 1280 x 480.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.calibration import Calibration
from deploy.head.painter import HeadPainter
from deploy.loop import Tick
from deploy.recording import Recorder
from dyad import media
from dyad.action_units import SEED17
from dyad.clock import FPS, FRAME_S, samples_until
from dyad.provenance import atomic_path

HEIGHT, CURVES_PX, SPAN_FRAMES = 480, 320, 6 * FPS
PAPER, GRID, TEXT = (24, 28, 38), (48, 54, 70), (205, 212, 226)
FONT = cv2.FONT_HERSHEY_SIMPLEX
Shown = tuple[NDArray[np.float32], Sequence[str]]
"""Intensities [T, A] and the units' names."""


def write(
    path: Path, source: Path, sound: NDArray[np.float32], ticks: Sequence[Tick], recorder: Recorder, au: Shown
) -> None:
    """Write the video with the speaker's sound, all or nothing; the head as it was in the middle of each frame.

    It begins with the first tick that was kept.
    """
    if not ticks:
        raise ValueError(f"{path}: nothing was played, so there is nothing to show")
    began, ended = (samples_until(frame) for frame in (ticks[0].frame, ticks[-1].frame + 1))
    with atomic_path(path) as part:
        media.write_video(part, _pictures(source, ticks, recorder, au), audio=sound[began:ended], crf=22)


def _pictures(source: Path, ticks: Sequence[Tick], recorder: Recorder, au: Shown) -> Iterator[NDArray[np.uint8]]:
    painter, curves = HeadPainter(HEIGHT), _Curves(*au)
    middles_s = np.array([tick.captured_at_s for tick in ticks]) - 0.5 * FRAME_S
    joints = recorder.joints_at(middles_s)
    place = {tick.frame: i for i, tick in enumerate(ticks)}
    i = 0
    for t, picture in media.iter_grid_frames(source):
        if t < ticks[0].frame:
            continue
        if t > ticks[-1].frame:
            return
        i = place.get(t, i)
        head = np.zeros((HEIGHT, HEIGHT, 3), np.uint8) if joints is None else painter.draw(joints[i])
        yield np.ascontiguousarray(np.hstack([_speaker(picture, ticks[i].box), head, curves.draw(i)]))


def asked_for(ticks: Sequence[Tick], calibration: Calibration, ahead_s: float) -> NDArray[np.float32]:
    """[T, 17] intensities that each frame's moment was asked to show, by the plan made `ahead_s` before it."""
    when = np.array([tick.captured_at_s for tick in ticks])
    asked = calibration.intensity(np.array([_row(tick, ahead_s) for tick in ticks]))
    return np.stack([np.interp(when, when + ahead_s, column) for column in asked.T], axis=1).astype(np.float32)


def _row(tick: Tick, ahead_s: float) -> NDArray[np.float32]:
    """Probabilities [17] that a tick's plan holds for `ahead_s` after its capture."""
    if tick.plan is None:
        return np.zeros(len(SEED17.units), np.float32)
    target_s = tick.plan.captured_at_s + ahead_s
    return np.array([np.interp(target_s, tick.plan.target_times_s, column) for column in tick.plan.au.T], np.float32)


def _speaker(picture: NDArray[np.uint8], box: tuple[float, float, float, float] | None) -> NDArray[np.uint8]:
    """The speaker's picture, cut to a square of the video's height around the face, the face marked."""
    picture = picture.copy()
    height, width = picture.shape[:2]
    side = min(height, width)
    centre = (width / 2, height / 2) if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    if box is not None:
        corners = [(round(box[0]), round(box[1])), (round(box[2]), round(box[3]))]
        cv2.rectangle(picture, corners[0], corners[1], (90, 220, 200), max(1, side // 240), cv2.LINE_AA)
    x0 = int(np.clip(centre[0] - side / 2, 0, width - side))
    y0 = int(np.clip(centre[1] - side / 2, 0, height - side))
    square = picture[y0 : y0 + side, x0 : x0 + side]
    return np.asarray(cv2.resize(square, (HEIGHT, HEIGHT), interpolation=cv2.INTER_AREA), np.uint8)


class _Curves:
    """Scrolling curves of what was asked for; the right edge is now."""

    def __init__(self, sent: NDArray[np.float32], au_names: Sequence[str]) -> None:
        self._sent, self._names = sent, au_names
        hues = np.linspace(0, 160, len(au_names)).astype(np.uint8)
        bright = np.stack([hues, np.full_like(hues, 130), np.full_like(hues, 245)], axis=1)[None]
        self._colours = cv2.cvtColor(bright, cv2.COLOR_HSV2RGB)[0].tolist()

    def draw(self, now: int) -> NDArray[np.uint8]:
        """One picture [480, 320, 3]."""
        sheet = np.full((HEIGHT, CURVES_PX, 3), PAPER, np.uint8)
        row = HEIGHT / len(self._names)
        left, right = 46, CURVES_PX - 8
        first = max(0, now - SPAN_FRAMES + 1)
        x = right - (now - np.arange(first, now + 1)) * (right - left) / (SPAN_FRAMES - 1)
        for a, name in enumerate(self._names):
            base = (a + 1) * row - 5
            cv2.line(sheet, (left, round(base)), (right, round(base)), GRID, 1)
            cv2.putText(sheet, name, (6, round(base - 2)), FONT, 0.36, TEXT, 1, cv2.LINE_AA)
            y = base - self._sent[first : now + 1, a] * (row - 8)
            points = np.round(np.column_stack([x, y]) * 8).astype(np.int32)
            cv2.polylines(sheet, [points], False, self._colours[a], 2, cv2.LINE_AA, 3)
        return sheet
