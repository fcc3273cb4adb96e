"""A recording replayed as if live: each frame is handed out only once it would have ended.

Pictures are decoded ahead by a thread into a short queue; deadlines are absolute, so a slow tick delays nothing after
it. Sound is cut at the frame's end: no sample is heard early.
"""

import queue
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.sources import Packet
from dyad import clock, media
from student.frontend import audio_window
from student.spec import StudentSpec

AHEAD_FRAMES = 30
SHORT_S = 0.25
"""How much shorter than promised a recording may be before it is called damaged."""


class FileSource:
    """One recording with its own sound track, or a sound file beside it."""

    def __init__(
        self, path: Path, spec: StudentSpec, *, audio: Path | None = None, max_frames: int | None = None
    ) -> None:
        info = media.probe(path)
        if not info.has_video:
            raise media.MediaError(f"{path}: holds no pictures; give a video file with --source")
        self.path, self.name = path, path.name
        self.sound: NDArray[np.float32] = media.read_audio(audio or path)
        self._spec, self._max = spec, max_frames
        self._queue: queue.Queue[tuple[int, NDArray[np.uint8]] | None] = queue.Queue(AHEAD_FRAMES)
        self._promised_s = info.video_duration_s
        self.note = ""
        """What a person should know about the recording once it has ended."""
        self._stop = threading.Event()
        self._start_s = 0.0
        self._error: ValueError | OSError | None = None
        self._thread = threading.Thread(target=self._decode, name="decode", daemon=True)
        self._thread.start()

    def _decode(self) -> None:
        t = -1
        try:
            for t, picture in media.iter_grid_frames(self.path):
                if self._stop.is_set() or (self._max is not None and t >= self._max):
                    return
                self._put((t, picture))
            if (t + 1) * clock.FRAME_S < self._promised_s - SHORT_S:
                self.note = (
                    f"{self.path}: pictures end after {(t + 1) * clock.FRAME_S:.1f} of {self._promised_s:.1f} s; the "
                    "file is damaged and was played to its last good one"
                )
        except (ValueError, OSError) as error:
            self._error = error
        finally:  # whoever waits for a picture is never left waiting
            self._put(None)

    def _put(self, item: tuple[int, NDArray[np.uint8]] | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def start(self, at_s: float) -> None:
        """Frame 0 starts at `at_s`; waits until the first picture is decoded."""
        self._start_s = at_s

    def wait_until_ready(self) -> None:
        """Block until decoding is ahead or done; call before `start`."""
        while self._thread.is_alive() and self._queue.qsize() < AHEAD_FRAMES // 2:
            self._thread.join(timeout=0.01)

    def due_s(self, frame: int) -> float:
        """When `frame` has ended."""
        return self._start_s + (frame + 1) * clock.FRAME_S

    def read(self, frame: int) -> Packet | None:
        """The packet of `frame`; earlier ones still in the queue are dropped."""
        while True:
            item = self._queue.get()
            if item is None:
                self._queue.put(None)  # the end stays the end, however often it is asked for
                if self._error is not None:
                    raise self._error
                return None
            if item[0] >= frame:
                window = audio_window(self.sound, item[0], self._spec)
                return Packet(item[0], self.due_s(item[0]), item[1], window)

    def close(self) -> None:
        """Stop decoding."""
        self._stop.set()
        self._thread.join(timeout=2.0)
