"""Which sessions come from one recording: they resemble each other, and an interval must not count them apart.

    ROOT/recordings.json    session → recording, as far as a layout tells; python -m dyad.prepare writes it

Where nobody says, sessions that show the same people's pictures are one: both directions of a clip.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dyad.layouts.processed import root_of
from dyad.provenance import read_json, write_json
from dyad.session import Session

NAME = "recordings.json"


def write(root: Path | str, recordings: Mapping[str, str]) -> None:
    """Say of every session from which recording it is."""
    write_json(root_of(root) / NAME, dict(recordings))


def of(root: Path | str, sessions: Sequence[Session]) -> list[str]:
    """The recording of every session."""
    path = root_of(root) / NAME
    known = read_json(path) if path.is_file() else {}
    return [str(known[s.id]) if s.id in known else _shown(s) for s in sessions]


def _shown(session: Session) -> str:
    """The people's pictures, whoever speaks; the session itself where there are none."""
    shown = [p for p in (session.speaker_video_path, session.listener_video_path) if p is not None and p.name]
    return " ".join(sorted(map(str, shown))) or session.id
