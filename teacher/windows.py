"""Media of a session as the teacher takes them: pictures at a few hertz, sound at 16 kHz, cut into windows.

Windows are of one length, so that a batch needs no padding; where one reaches past the end of its session, it is
extended by the last picture and by silence.
Shapes: K pictures, S samples.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dyad import clock, media
from dyad.session import Speaker
from teacher.window_spec import WindowSpec


@dataclass(frozen=True)
class SpeakerMedia:
    """A whole session: pictures [K, size, size, 3] uint8 at the window's rate, sound [S]; both may be memory maps."""

    pictures: NDArray[np.uint8]
    sound: NDArray[np.float32]
    n_frames: int


def read_speaker(session: Speaker, spec: WindowSpec) -> SpeakerMedia:
    """Decode a session's speaker; raises MediaError naming the file."""
    every, pictures, t, picture = clock.FPS // spec.video_fps, [], -1, None
    for t, picture in media.iter_grid_frames(session.speaker_video_path):
        if t % every == every // 2:  # the middle of the slot that the picture's token stands for
            pictures.append(square(picture, spec.size_px))
    if not pictures and picture is not None:  # shorter than half a slot
        pictures.append(square(picture, spec.size_px))
    return SpeakerMedia(np.stack(pictures), media.read_audio(session.speaker_audio_path), t + 1)


def square(picture: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """The centre square, resized."""
    height, width = picture.shape[:2]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    square = picture[y : y + side, x : x + side]
    return np.asarray(cv2.resize(square, (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8)


def starts(n_frames: int, spec: WindowSpec, hop_frames: int) -> list[int]:
    """First frames of the windows that cover a session, each on a grid; the last one ends with it or just after."""
    grid = clock.FPS // spec.video_fps * 2
    last = -(-max(n_frames - spec.frames, 0) // grid) * grid
    hop = min(max(hop_frames // grid, 1), spec.frames // grid) * grid
    return [*range(0, last, hop), last]


def cut(speaker: SpeakerMedia, start: int, spec: WindowSpec) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures [pictures, size, size, 3] and sound [samples] of the window at frame `start` (a multiple of a grid)."""
    first = start * spec.video_fps // clock.FPS
    rows = np.minimum(np.arange(first, first + spec.pictures), len(speaker.pictures) - 1)
    return speaker.pictures[rows], cut_sound(speaker, start, spec)


def cut_sound(speaker: SpeakerMedia, start: int, spec: WindowSpec) -> NDArray[np.float32]:
    """Sound [samples] of the window at frame `start`, silence past the session's end."""
    sound = np.zeros(spec.samples, np.float32)
    begin = clock.samples_until(start)
    piece = speaker.sound[begin : begin + spec.samples]
    sound[: len(piece)] = piece
    return sound
