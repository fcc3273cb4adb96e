"""Sessions with their media decoded once, for tuning and labelling.

    ROOT/cache/teacher-<rate and size>/<session>/pictures.npy   [K, size, size, 3] uint8
                                                 sound.npy      [S] float32
                                                 meta.json      number of frames; the media's sizes and times

Arrays are memory-mapped: a window is read without the rest of its session, and a dataset need not fit into memory.
Chosen by measurement (benchmarks/storage.py). Written all or nothing per session.
"""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dyad.layouts.processed import root_of
from dyad.provenance import atomic_path, sha256_bytes
from dyad.session import Session, Speaker
from teacher.windows import SpeakerMedia, WindowSpec, read_speaker


def cached_speaker(root: Path, session: Speaker, spec: WindowSpec) -> SpeakerMedia:
    """A session's media at the window's rate, decoded on first use and kept under ROOT/cache.

    A damaged entry, or one of other media, is made again; where none can be kept (a full disk, a folder that may only
    be read) the session is decoded each time. Raises MediaError naming the file that cannot be decoded.
    """
    key = sha256_bytes(f"{spec.video_fps}/{spec.size_px}/middle of the slot".encode())[:12]
    folder, stamp = root_of(root) / "cache" / f"teacher-{key}" / session.id, _stamp(session)
    if (kept := _open(folder, stamp)) is not None:
        return kept
    speaker = read_speaker(session, spec)
    with contextlib.suppress(OSError), atomic_path(folder) as part:
        part.mkdir()
        np.save(part / "pictures.npy", speaker.pictures)
        np.save(part / "sound.npy", speaker.sound)
        (part / "meta.json").write_text(json.dumps({"n_frames": speaker.n_frames, "stamp": stamp}), encoding="utf8")
    return _open(folder, stamp) or speaker


def _stamp(session: Speaker) -> list[list[int]]:
    """Size and time of each file: what the entry was made of."""
    stats = [p.stat() for p in (session.speaker_video_path, session.speaker_audio_path) if p.is_file()]
    return [[s.st_size, int(s.st_mtime)] for s in stats]


def _open(folder: Path, stamp: list[list[int]]) -> SpeakerMedia | None:
    """The entry as memory maps; None where there is none, or one of other media, or a damaged one."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf8"))
        if meta["stamp"] != stamp:
            return None
        pictures, sound = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("pictures", "sound"))
        return SpeakerMedia(pictures, sound, int(meta["n_frames"]))
    except (OSError, ValueError, EOFError, KeyError):
        return None


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
