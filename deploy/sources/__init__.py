"""Where pictures and sound come from: packets stamped with the loop's monotonic clock.

A recording is replayed as if live (file.py); cameras, microphones, network streams and browsers are live (live.py).
`open_source` chooses by what the user wrote.

    --source  clip.mp4 | camera:0 | camera:/dev/video0 | rtsp://… | webrtc | furhat://host | none
    --audio   sound.wav | mic:default | mic:2 | none
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dyad.clock import Clock
    from student.spec import StudentSpec


@dataclass(frozen=True)
class Packet:
    """What is known of one 30 Hz frame once it has ended."""

    frame: int
    captured_at_s: float
    """When the frame ended, on the loop's clock."""
    picture: NDArray[np.uint8] | None
    """[H, W, 3] RGB; None when the camera gave nothing."""
    audio: NDArray[np.float32]
    """[800] the samples that end with the frame, zeros where there are none."""
    flags: tuple[str, ...] = ()
    """What is wrong with it: "held_picture" (the one before, again), "no_picture", "sound_gap" (a part of the window
    never came), "no_sound" (none of it came)."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a source received and what was missing, since `start`."""

    pictures: int = 0
    """Received."""
    pictures_held: int = 0
    """Frames that showed the picture before again, because no newer one had come."""
    pictures_dropped: int = 0
    """Received and never shown: a faster camera, a late arrival, a skipped frame."""
    pictures_duplicated: int = 0
    """Received twice with the same time stamp; the second one is thrown away."""
    frames_without_picture: int = 0
    """Frames that had nothing to show."""
    sound_gaps: int = 0
    """Holes in the sound, filled with zeros."""
    frames_without_sound: int = 0
    """Frames of whose window no sample came."""
    clock_jumps: int = 0
    """Leaps of a track's own time stamps, after which it was aligned anew."""
    reconnects: int = 0
    """Times that a lost device or connection came back."""


class Source(Protocol):
    """A stream of packets."""

    name: str
    greeting: str
    """What a person should know before it starts: a page to open, a microphone that is missing."""
    recording: Path | None
    """The file whose pictures are replayed; None for live senses, of which nothing is kept."""
    sound: NDArray[np.float32]
    """[S] the whole sound of a recording at 16 kHz; empty for live senses."""

    @property
    def note(self) -> str:
        """What a person should know once it has ended; empty when all was well."""
        ...

    @property
    def counts(self) -> Counts:
        """What was received and what was missing so far."""
        ...

    def wait_until_ready(self) -> None:
        """Block, a few seconds at most, until packets can flow in time; call before `start`."""
        ...

    def start(self, at_s: float) -> None:
        """Begin: frame 0 starts at `at_s`."""
        ...

    def due_s(self, frame: int) -> float:
        """When `frame` can be read: it has ended, and what belongs to it has had time to arrive."""
        ...

    def read(self, frame: int) -> Packet | None:
        """The packet of `frame`, skipping earlier ones; None at the end."""
        ...

    def close(self) -> None:
        """Release devices and threads."""
        ...


def open_source(
    source: str,
    audio: str | None,
    spec: "StudentSpec",
    clock: "Clock",
    max_frames: int | None = None,
    *,
    wait_s: float = 0.01,
) -> Source:
    """Open what `--source` and `--audio` name; devices are open, and refused by name, when this returns.

    Without `audio` a file, a stream, a browser and a Furhat bring their own sound, and a camera is joined by
    `mic:default`. A microphone that cannot be opened beside pictures is said in `greeting` and tried again later;
    whatever else cannot be opened raises MediaError (a ValueError). `wait_s` is how long a read of live senses may wait
    for what is late.
    """
    from deploy.sources import opening

    if opening.is_file(source, audio):
        return opening.open_file(source, audio, spec, max_frames)
    return opening.open_live(source, audio, spec, clock, max_frames, wait_s)
