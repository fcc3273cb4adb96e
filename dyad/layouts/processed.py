"""The product's own dataset layout: `processed/{train,val}`, readable with `datasets.load_from_disk`.

    ROOT/processed/train, ROOT/processed/val   the table: one row per session
    ROOT/media/…                               what the rows' path columns name, relative to ROOT

Columns are those of the system's requirements: id, speaker_video_path, speaker_audio_path, listener_video_path,
listener_audio_path, listener_au_names, listener_au_prob and listener_au_act (unit → list), listener_frame_idx, fps,
duration, n_frames. A unit that a session was not annotated for is stored as null and read as NaN.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17, positions
from dyad.provenance import atomic_path
from dyad.session import Clip, Session

SPLITS = ("train", "val")


def root_of(path: Path | str) -> Path:
    """The folder that holds `processed/`, given it or `processed/` itself."""
    path = Path(path)
    return path.parent if path.name == "processed" else path


def load(root: Path | str, split: str, *, au_names: Sequence[str] = SEED17.units) -> list[Session]:
    """All sessions of a split, units in the order of `au_names`, absent ones NaN.

    Raises ValueError when the split is missing or a row breaks the schema.
    """
    return list(iterate(root, split, au_names=au_names))


def iterate(root: Path | str, split: str, *, au_names: Sequence[str] = SEED17.units) -> Iterator[Session]:
    """As `load`, one session in memory at a time."""
    for row in _table(root_of(root), split):
        yield _session(row, root_of(root), tuple(au_names))


def clips(root: Path | str, split: str, only: str | None = None) -> list[Clip]:
    """The speakers of a split, or of "all", without annotation; with `only`, that session's.

    Raises ValueError when the split is missing, or there is no session of this name.
    """
    root, columns = root_of(root), ["id", "speaker_video_path", "speaker_audio_path", "n_frames"]
    found: list[Clip] = []
    for name in SPLITS if split == "all" else (split,):
        for row in _table(root, name).select_columns(columns):
            video, audio = (_resolve(root, row[k]) or Path() for k in columns[1:3])
            clip = Clip(id=row["id"], speaker_video_path=video, speaker_audio_path=audio, n_frames=row["n_frames"])
            found.append(clip)
    if only is None:
        return found
    chosen = [c for c in found if c.id == only]
    if not chosen:
        raise ValueError(f"{root}: has no session {only!r}; it holds {', '.join(c.id for c in found[:3])} …")
    return chosen


def _table(root: Path, split: str) -> Any:
    """The table of a split, memory-mapped."""
    folder = root / "processed" / split
    if not (folder / "state.json").is_file():
        raise ValueError(
            f"{folder}: no dataset there; make one with python -m dyad.prepare RAW {root} "
            f"or python -m dyad.synthetic --out {root}"
        )
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_from_disk(str(folder))


def _session(row: dict[str, Any], root: Path, au_names: tuple[str, ...]) -> Session:
    n_frames = int(row["n_frames"])
    session = Session(
        id=row["id"],
        speaker_video_path=_resolve(root, row["speaker_video_path"]) or Path(),
        speaker_audio_path=_resolve(root, row["speaker_audio_path"]) or Path(),
        listener_video_path=_resolve(root, row["listener_video_path"]),
        listener_audio_path=_resolve(root, row["listener_audio_path"]),
        au_names=au_names,
        prob=_columns(row["listener_au_prob"], au_names, n_frames, row["id"]),
        act=_columns(row["listener_au_act"], au_names, n_frames, row["id"]),
        fps=float(row["fps"]),
        duration_s=float(row["duration"]),
        n_frames=n_frames,
    )
    session.validate()
    return session


def _resolve(root: Path, stored: str | None) -> Path | None:
    return None if not stored else root / stored  # an absolute path stays itself


def _columns(
    by_unit: dict[str, list[float] | None], au_names: tuple[str, ...], n_frames: int, session_id: str
) -> NDArray[np.float32]:
    """[T, A] of a dict of lists, NaN where a unit or a value is missing."""
    values = np.full((n_frames, len(au_names)), np.nan, np.float32)
    for a, unit in enumerate(au_names):
        column = by_unit.get(unit)
        if column is None or len(column) == 0:
            continue
        if len(column) != n_frames:
            raise ValueError(f"session {session_id}: {unit} has {len(column)} values, but n_frames is {n_frames}")
        values[:, a] = np.array(column, np.float32)
    return values


def speaker_units(root: Path | str, session_id: str, au_names: Sequence[str]) -> NDArray[np.float32] | None:
    """The speaker's own units [T, A], NaN where unknown: from `speaker_au/<id>.npz` (keys au, names) or a synthetic
    session's truth; None when there is neither.
    """
    root = root_of(root)
    for path, key, names_key in (
        (root / "speaker_au" / f"{session_id}.npz", "au", "names"),
        (root / "truth" / f"{session_id}.npz", "speaker_au", "speaker_au_names"),
    ):
        if path.is_file():
            with np.load(path, allow_pickle=False) as content:
                values, names = content[key], [str(n) for n in content[names_key]]
            out = np.full((len(values), len(au_names)), np.nan, np.float32)
            source, target = positions(names, au_names)
            out[:, target] = values[:, source]
            return out
    return None


def write(root: Path | str, split: str, sessions: Iterable[Session], *, empty_units: Sequence[str] = ()) -> None:
    """Write the table of a split, all or nothing; media stay where the sessions' paths say, stored relative to ROOT.

    No session at all is refused, unless `empty_units` says for which units the empty table is.
    """
    import datasets

    datasets.disable_progress_bars()
    root = root_of(root)
    rows = [_row(session, root) for session in sessions]
    if not rows and not empty_units:
        raise ValueError(f"{root}/processed/{split}: no session to write; a split needs at least one")
    names = rows[0]["listener_au_names"] if rows else list(empty_units)
    floats, whole = datasets.List(datasets.Value("float32")), datasets.List(datasets.Value("int8"))
    features = datasets.Features(
        {
            **{k: datasets.Value("string") for k in ("id", "speaker_video_path", "speaker_audio_path")},
            **{k: datasets.Value("string") for k in ("listener_video_path", "listener_audio_path")},
            "listener_au_names": datasets.List(datasets.Value("string")),
            "listener_au_prob": dict.fromkeys(names, floats),
            "listener_au_act": dict.fromkeys(names, whole),
            "listener_frame_idx": datasets.List(datasets.Value("int32")),
            "fps": datasets.Value("float64"),
            "duration": datasets.Value("float64"),
            "n_frames": datasets.Value("int32"),
        }
    )
    columns = {name: [row[name] for row in rows] for name in features}
    table = datasets.Dataset.from_dict(columns, features=features)
    with atomic_path(root / "processed" / split) as part:
        table.save_to_disk(str(part), num_shards=None if rows else 1)  # an empty table without a file cannot be read


def _row(session: Session, root: Path) -> dict[str, Any]:
    def stored(path: Path | None) -> str | None:
        if path is None:
            return None
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)

    def lists(values: NDArray[np.float32]) -> dict[str, list[Any] | None]:
        return {
            unit: None if np.isnan(values[:, a]).all() else [None if np.isnan(v) else float(v) for v in values[:, a]]
            for a, unit in enumerate(session.au_names)
        }

    act = {
        unit: None if column is None else [None if v is None else int(v) for v in column]
        for unit, column in lists(session.act).items()
    }
    return {
        "id": session.id,
        "speaker_video_path": stored(session.speaker_video_path),
        "speaker_audio_path": stored(session.speaker_audio_path),
        "listener_video_path": stored(session.listener_video_path),
        "listener_audio_path": stored(session.listener_audio_path),
        "listener_au_names": list(session.au_names),
        "listener_au_prob": lists(session.prob),
        "listener_au_act": act,
        "listener_frame_idx": list(range(session.n_frames)),
        "fps": session.fps,
        "duration": session.duration_s,
        "n_frames": session.n_frames,
    }
