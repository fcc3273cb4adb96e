"""A recording played again and again, for runs that are longer than any clip: each round is decoded anew."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from deploy.sources import Counts, Packet
from deploy.sources.file import FileSource
from dyad.clock import FRAME_S
from dyad.config import as_dict
from student.spec import StudentSpec

ROOT = Path(__file__).resolve().parent.parent


def settings(config: Any) -> dict[str, Any]:
    """Plain data of a benchmark's configuration: paths as seen from the repository, of files elsewhere the name."""

    def shown(value: Any) -> Any:
        if not isinstance(value, str) or "/" not in value:
            return value
        path = Path(value).resolve()
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name

    return {key: shown(value) for key, value in as_dict(config).items()}


class Repeating:
    """`frames` frames of a recording that starts again at its end. At the seam the picture jumps, as in a hard cut."""

    def __init__(self, path: Path, spec: StudentSpec, frames: int) -> None:
        self.name, self.greeting, self.note, self.recording = f"{path.name}, again and again", "", "", path
        self._counted = Counts()
        self._path, self._spec, self._frames = path, spec, frames
        self._first, self._start_s = 0, 0.0
        self._round = FileSource(path, spec)
        self.sound = self._round.sound

    @property
    def counts(self) -> Counts:
        """Of all rounds together."""
        rounds = (self._counted, self._round.counts)
        return Counts(**{f.name: sum(getattr(c, f.name) for c in rounds) for f in fields(Counts)})

    def wait_until_ready(self) -> None:
        """Block until the first round is decoded ahead."""
        self._round.wait_until_ready()

    def start(self, at_s: float) -> None:
        """Frame 0 starts at `at_s`."""
        self._start_s = at_s
        self._round.start(at_s)

    def due_s(self, frame: int) -> float:
        """When `frame` has ended."""
        return self._start_s + (frame + 1) * FRAME_S

    def read(self, frame: int) -> Packet | None:
        """The packet of `frame`, from the round that it falls into."""
        if frame >= self._frames:
            return None
        packet = self._round.read(frame - self._first)
        if packet is None:
            self._counted = self.counts
            self._round.close()
            self._first, self._round = frame, FileSource(self._path, self._spec)
            packet = self._round.read(0)
            assert packet is not None
        shifted = packet.frame + self._first
        return Packet(shifted, self.due_s(shifted), packet.picture, packet.audio, packet.flags)

    def close(self) -> None:
        """Stop decoding."""
        self._round.close()
