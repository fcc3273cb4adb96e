"""Sessions after the front end, on disk: decoded, cropped and memory-mapped, so that training never waits for video.

    ROOT/cache/<front hash>/<session>/frames.npy   [T, h, w, 3] uint8
                                      audio.npy    [S] float32
                                      present.npy  [T, 2] float32

Written all or nothing per session; keyed by what the front end depends on and by the media's size and time.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.layouts.processed import root_of
from dyad.provenance import atomic_path
from dyad.session import Session
from student.frontend import process_session
from student.spec import StudentSpec


@dataclass(frozen=True)
class FrontSession:
    """One session after the front end; frames are memory-mapped."""

    frames: NDArray[np.uint8]
    audio: NDArray[np.float32]
    present: NDArray[np.float32]


def folder_of(root: Path | str, spec: StudentSpec) -> Path:
    """Cache folder of a dataset for this front end."""
    return root_of(root) / "cache" / spec.front_hash()


def _stamp(session: Session) -> dict[str, list[float]]:
    stats = {str(p.name): p.stat() for p in (session.speaker_video_path, session.speaker_audio_path)}
    return {name: [s.st_size, s.st_mtime] for name, s in stats.items()}


def ensure(folder: Path, session: Session, spec: StudentSpec) -> str | None:
    """Make the session's entry unless it is there and current; returns the reason when its media fail."""
    target = folder / session.id
    try:
        stamp = _stamp(session)
        meta = target / "meta.json"
        if meta.is_file() and json.loads(meta.read_text(encoding="utf8")) == stamp:
            return None
        frames, audio, present = process_session(session.speaker_video_path, session.speaker_audio_path, spec)
    except (ValueError, OSError) as error:
        return str(error)
    with atomic_path(target) as part:
        part.mkdir(parents=True)
        for name, values in (("frames", frames), ("audio", audio), ("present", present)):
            np.save(part / f"{name}.npy", values)
        (part / "meta.json").write_text(json.dumps(stamp), encoding="utf8")
    return None


def ensure_all(root: Path | str, sessions: Iterable[Session], spec: StudentSpec, *, workers: int = 2) -> dict[str, str]:
    """Make all entries; returns session → reason of those whose media fail. The others are unaffected."""
    folder, sessions = folder_of(root, spec), list(sessions)
    with ProcessPoolExecutor(max_workers=max(workers, 1)) as pool:
        reasons = list(pool.map(ensure, [folder] * len(sessions), sessions, [spec] * len(sessions)))
    return {s.id: r for s, r in zip(sessions, reasons, strict=True) if r is not None}


def load(root: Path | str, session_id: str, spec: StudentSpec) -> FrontSession:
    """Open a session's entry; raises ValueError when it has not been made."""
    folder = folder_of(root, spec) / session_id
    if not (folder / "meta.json").is_file():
        raise ValueError(f"{folder}: session not decoded yet; run the front end first")
    return FrontSession(
        np.load(folder / "frames.npy", mmap_mode="r"), np.load(folder / "audio.npy"), np.load(folder / "present.npy")
    )
