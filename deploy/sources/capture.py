"""Devices, the threads that follow them, and the inlet where what they capture is put.

A device (camera, microphone, stream, browser, robot) opens, then pushes pictures and sound into `Senses` until it is
told to stop or is lost. A lost one is opened again after 0.5, 1, 2, 4 … s; meanwhile its modality is missing and the
rest goes on.
"""

import threading
from collections import deque
from typing import Protocol

import av.error
import numpy as np
from numpy.typing import NDArray

from deploy.sources.rings import PictureRing, SoundRing
from deploy.sources.stamps import TimeMap
from dyad.clock import SAMPLE_RATE_HZ, Clock

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Pauses between attempts to open a lost device; each is twice the one before."""
HEALTHY_S = 5.0
"""A device that has worked for so long starts again from the shortest pause."""
CLOSE_S = 2.0
"""How long closing waits for a device's thread; a driver that hangs is left behind."""
LOST = (av.error.FFmpegError, OSError, ValueError)
"""What a device raises when it cannot be opened or is lost."""
MISTAKES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
"""What our own code or a library raises over data that it did not expect; a lost sense too, with its kind named."""


def why(error: BaseException) -> str:
    """The reason alone: FFmpeg's own text repeats the address, and with it a camera's password."""
    if isinstance(error, av.error.ExitError):  # "Immediate exit requested": by the time limit that we gave it
        return "nothing came in time"
    said = str(getattr(error, "strerror", None) or error)
    return f"{type(error).__name__}: {said}" if isinstance(error, MISTAKES) else said


class Lateness:
    """How long after its capture a modality arrives: the 95th percentile of the last 64 arrivals."""

    SHARE, NUMBER = 0.95, 64

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=self.NUMBER)
        self._lock = threading.Lock()

    def note(self, late_s: float) -> None:
        """One arrival."""
        with self._lock:
            self._seconds.append(late_s)

    @property
    def seconds(self) -> float:
        """0 before the first arrival."""
        with self._lock:
            ordered = sorted(self._seconds)
        return ordered[int(self.SHARE * (len(ordered) - 1))] if ordered else 0.0


class Senses:
    """The inlet: devices call `see` and `hear`, from any thread, with the time of capture on the loop's clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pictures, self.sound = PictureRing(), SoundRing()
        self.picture_late, self.sound_late = Lateness(), Lateness()
        self.saw_at_s = self.heard_at_s = float("-inf")
        """When something last arrived."""
        self.clock_jumps = self.reconnects = 0

    def see(self, picture: NDArray[np.uint8], captured_at_s: float) -> None:
        """A picture [H, W, 3] RGB; a capture time in the future is a device's mistake and becomes now."""
        now_s = self.clock.now_s()
        captured_at_s = min(captured_at_s, now_s)
        self.pictures.push(picture, captured_at_s)
        self.picture_late.note(now_s - captured_at_s)
        self.saw_at_s = now_s

    def hear(self, block: NDArray[np.float32], captured_at_s: float) -> None:
        """Sound [S] mono float32 in [-1, 1] at 16 kHz; `captured_at_s` is when its first sample was captured."""
        if not len(block):
            return
        now_s, length_s = self.clock.now_s(), len(block) / SAMPLE_RATE_HZ
        captured_at_s = min(captured_at_s, now_s - length_s)
        self.sound.write(block, captured_at_s)
        self.sound_late.note(now_s - captured_at_s - length_s)
        self.heard_at_s = now_s

    def time_map(self, latency_s: float = 0.0) -> TimeMap:
        """For a device with time stamps of its own; leaps of them are counted here."""
        return TimeMap(latency_s, self._jumped)

    def _jumped(self) -> None:
        self.clock_jumps += 1


class Device(Protocol):
    """One camera, microphone or connection."""

    name: str

    @property
    def sees(self) -> bool:
        """Gives pictures; known once it is open."""
        ...

    @property
    def hears(self) -> bool:
        """Gives sound; known once it is open."""
        ...

    @property
    def greeting(self) -> str:
        """What a person should know before it starts, for example which page to open."""
        ...

    def open(self) -> None:
        """Open it; raises MediaError with one sentence when it cannot be."""
        ...

    def follow(self, senses: Senses, stop: threading.Event) -> None:
        """Push what it captures until `stop` is set; return or raise one of LOST when it is lost."""
        ...

    def close(self) -> None:
        """Release it; it can be opened again."""
        ...


class Follower:
    """A thread that follows a device and opens it again when it is lost."""

    def __init__(self, device: Device, senses: Senses, *, required: bool = True) -> None:
        """Opens the device; one that is not `required` may fail now and is tried again later."""
        self.device = device
        self.trouble = ""
        """Why it is missing; empty while it works."""
        self._senses, self._stop = senses, threading.Event()
        try:
            device.open()
        except LOST as error:
            if required:
                raise
            self.trouble = why(error)
        self._thread = threading.Thread(target=self._run, name=device.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._stop.is_set():
            if not self.trouble and self._follow() > HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            if self._stop.wait(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._reopen()
        self.device.close()  # opened, and asked to stop before it was followed

    def _follow(self) -> float:
        """Follow until it is lost; how many seconds that was."""
        began_s = self._senses.clock.now_s()
        try:
            self.device.follow(self._senses, self._stop)
            self.trouble = "" if self._stop.is_set() else f"{self.device.name}: ended"
        except (*LOST, *MISTAKES) as error:
            self.trouble = f"{self.device.name}: lost ({why(error)})"
        finally:
            self.device.close()
        return self._senses.clock.now_s() - began_s

    def _reopen(self) -> None:
        try:
            self.device.open()
        except LOST as error:
            self.trouble = why(error)
        except MISTAKES as error:
            self.trouble = f"{self.device.name}: cannot be opened ({why(error)})"
        else:
            self.trouble = ""
            self._senses.reconnects += 1

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stop.set()

    def close(self) -> None:
        """Stop following and release the device."""
        self._stop.set()
        self._thread.join(timeout=CLOSE_S)
