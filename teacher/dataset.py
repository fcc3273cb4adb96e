"""Sessions with their media decoded once, for tuning and labelling."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dyad.layouts.processed import root_of
from dyad.provenance import atomic_path, sha256_bytes
from dyad.session import Session
from teacher.windows import SpeakerMedia, WindowSpec, read_speaker


def cached_speaker(root: Path, session: Session, spec: WindowSpec) -> SpeakerMedia:
    """A session's media at the window's rate, decoded on first use and kept under ROOT/cache."""
    key = sha256_bytes(f"{spec.video_fps}/{spec.size_px}".encode())[:12]
    stats = [p.stat() for p in (session.speaker_video_path, session.speaker_audio_path) if p.is_file()]
    stamp = np.array([[s.st_size, int(s.st_mtime)] for s in stats])
    path = root_of(root) / "cache" / f"teacher-{key}" / f"{session.id}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            if np.array_equal(kept["stamp"], stamp):
                return SpeakerMedia(kept["pictures"], kept["sound"], int(kept["n_frames"]))
    speaker = read_speaker(session, spec)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, pictures=speaker.pictures, sound=speaker.sound, n_frames=speaker.n_frames, stamp=stamp)
    return speaker


def read_all(
    root: Path, sessions: Iterable[Session], spec: WindowSpec
) -> tuple[list[tuple[Session, SpeakerMedia]], dict[str, str]]:
    """(session, media) of all that can be read, and session → reason of the others."""
    ready: list[tuple[Session, SpeakerMedia]] = []
    failed: dict[str, str] = {}
    for session in sessions:
        try:
            ready.append((session, cached_speaker(root, session, spec)))
        except (ValueError, OSError) as error:
            failed[session.id] = str(error)
    return ready, failed
