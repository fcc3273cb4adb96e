"""A recording replayed as if live: each frame is handed out only once it would have ended.

Pictures are decoded ahead by a thread into a short queue; deadlines are absolute, so a slow tick delays nothing after
it. Sound is cut at the frame's end: no sample is heard early. What is odd about a recording is played as well as it can
be and said in `note`: a damaged end, sound that is missing, broken, shorter or longer than the pictures.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.sources import Counts, Packet
from dyad import clock, media
from student.frontend import audio_window
from student.spec import StudentSpec

AHEAD_FRAMES = 30
SHORT_S = 0.25
"""How much shorter than promised a recording may be before it is called damaged, or its sound before it is told."""
Picture = NDArray[np.uint8] | None


class FileSource:
    """One recording with its own sound track, or a sound file beside it, or a sound file alone."""

    greeting = ""

    def __init__(
        self,
        path: Path | None,
        spec: StudentSpec,
        *,
        audio: Path | None = None,
        silent: bool = False,
        max_frames: int | None = None,
    ) -> None:
        """`path` may be None where `audio` is given: sound without pictures. `silent` leaves the sound out."""
        heard = audio or path
        if heard is None:
            raise media.MediaError("nothing to replay; give a video with --source or a sound with --audio")
        self.recording, self.name = path, heard.name if path is None else path.name
        self._promised_s = _promised_s(path)
        self._spec, self._max = spec, max_frames
        self._notes: list[str] = []
        self.sound: NDArray[np.float32] = np.zeros(0, np.float32) if silent else self._read_sound(heard)
        if path is None and not len(self.sound):
            raise media.MediaError(f"{heard}: holds no sound; give a sound file with --audio")
        self._queue: queue.Queue[tuple[int, Picture] | None] = queue.Queue(AHEAD_FRAMES)
        self._counts = Counts()
        self._decoded: Picture = None
        self._shown: Picture = None
        self._stop = threading.Event()
        self._start_s = 0.0
        self._error: ValueError | OSError | None = None
        self._thread = threading.Thread(target=self._decode, name="decode", daemon=True)
        self._thread.start()

    def _read_sound(self, path: Path) -> NDArray[np.float32]:
        """The whole sound; a broken file is silence and a note, a missing one the user's mistake."""
        if not path.is_file():
            raise media.MediaError(f"{path}: no such file; check the path")
        try:
            sound = media.read_audio(path)
        except media.MediaError as error:
            self._notes.append(f"{error}; played without sound")
            return np.zeros(0, np.float32)
        longer_s = len(sound) / clock.SAMPLE_RATE_HZ - self._promised_s
        if not len(sound):
            self._notes.append(f"{path}: holds no sound; played without")
        elif self.recording is not None and abs(longer_s) > SHORT_S:
            how, then = ("longer", "cut") if longer_s > 0 else ("shorter", "filled with silence")
            self._notes.append(f"{path}: its sound is {abs(longer_s):.2f} s {how} than the pictures, and {then}")
        return sound

    @property
    def note(self) -> str:
        """What is odd about the recording, one line each; a damaged end is known once it was reached."""
        return "\n".join(self._notes)

    @property
    def counts(self) -> Counts:
        """Pictures decoded, held (slower or missing pictures) and skipped so far."""
        return self._counts

    def _pictures(self) -> Iterator[tuple[int, Picture]]:
        if self.recording is not None:
            return media.iter_grid_frames(self.recording)
        return ((t, None) for t in range(clock.frames_in(len(self.sound) / clock.SAMPLE_RATE_HZ)))

    def _decode(self) -> None:
        t = -1
        try:
            for t, picture in self._pictures():
                if self._stop.is_set() or (self._max is not None and t >= self._max):
                    return
                self._put((t, picture))
            if (t + 1) * clock.FRAME_S < self._promised_s - SHORT_S:
                self._notes.append(
                    f"{self.recording}: pictures end after {(t + 1) * clock.FRAME_S:.1f} of {self._promised_s:.1f} s; "
                    "the file is damaged and was played to its last good one"
                )
        except (ValueError, OSError) as error:
            self._error = error
        finally:  # whoever waits for a picture is never left waiting
            self._put(None)

    def _put(self, item: tuple[int, Picture] | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def start(self, at_s: float) -> None:
        """Frame 0 starts at `at_s`."""
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
            flags = self._flags(*item, shown=item[0] >= frame)
            if item[0] >= frame:
                window = audio_window(self.sound, item[0], self._spec)
                return Packet(item[0], self.due_s(item[0]), item[1], window, flags)

    def _flags(self, t: int, picture: Picture, *, shown: bool) -> tuple[str, ...]:
        """What is wrong with frame t, counted."""
        new, held = picture is not self._decoded, picture is not None and picture is self._shown
        passed = new and self._decoded is not self._shown
        self._decoded, self._shown = picture, picture if shown else self._shown
        silent = clock.samples_until(t) >= len(self.sound)
        now = self._counts
        self._counts = replace(
            now,
            pictures=now.pictures + new,
            pictures_held=now.pictures_held + (shown and held),
            pictures_dropped=now.pictures_dropped + passed,
            frames_without_picture=now.frames_without_picture + (shown and picture is None),
            frames_without_sound=now.frames_without_sound + (shown and silent),
        )
        seen = ("no_picture",) if picture is None else ("held_picture",) if held else ()
        return (*seen, "no_sound") if silent else seen

    def close(self) -> None:
        """Stop decoding."""
        self._stop.set()
        self._thread.join(timeout=2.0)


def _promised_s(path: Path | None) -> float:
    """Length of the pictures by the header; MediaError when there are none."""
    if path is None:
        return 0.0
    info = media.probe(path)
    if not info.has_video:
        raise media.MediaError(f"{path}: holds no pictures; give a video file with --source")
    return info.video_duration_s
