"""Build the product's dataset from a folder of recordings.

python -m dyad.prepare RAW OUT
python -m dyad.prepare --layout react2024 ROOT OUT

How files pair up by name: `dyad/prepare/pairs.py`; which tables are understood: `dyad/prepare/au_table.py`; the folders
of the REACT challenges, whose splits are kept: `dyad/layouts/react2024.py`, `react2025.py`.
Status 0: every pair was taken; 3: some were refused and the rest is written; 2: nothing could be written.
OUT is built beside and renamed: after a kill it is as it was.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from dyad.config import as_dict, parse, run_main

if TYPE_CHECKING:
    from collections.abc import Callable

    from dyad.prepare.build import Built, Limits
    from dyad.prepare.pairs import Pair

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Config:
    """From where, to where, and what still counts as a session."""

    raw: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RAW")]
    """Folder of recordings: <id>_speaker.mp4, <id>_speaker.wav (or the video's own sound), <id>_listener.csv."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder of the dataset; must be new, empty, or an earlier output of this command, which is then replaced."""
    layout: Literal["recordings", "react2024", "react2025"] = "recordings"
    """What RAW is: recordings named by their roles, or the folder of a REACT challenge (2023 is laid out as 2024, 2026
    as 2025)."""
    mirrored: bool = True
    """Of a challenge's clips take both directions: each person listens once."""
    allow_shared_subjects: bool = False
    """Take a challenge whose splits share a person; what is then scored on them says less."""
    val_share: float = 0.2
    """Share of sessions for validation, chosen by a hash of their id: adding sessions moves none."""
    min_seconds: float = 2.0
    """Shorter sessions are refused."""
    max_mismatch_seconds: float = 0.5
    """How much sound, pictures and table may differ in length; the shorter one counts."""
    speakers_only: bool = False
    """Take speakers without a listener's table: for a teacher to label, and `distill.train --extra` to learn from."""
    workers: int = 2
    """Processes."""

    def __post_init__(self) -> None:
        """Refuse what makes no dataset."""
        if not 0 <= self.val_share < 1:
            raise ValueError(f"--val-share {self.val_share:g}: wanted a share from 0 up to, not including, 1")
        if self.min_seconds <= 0 or self.max_mismatch_seconds < 0 or self.workers < 1:
            raise ValueError("--min-seconds above 0, --max-mismatch-seconds from 0 and --workers from 1 are wanted")
        if self.speakers_only and self.layout != "recordings":
            raise ValueError(f"--speakers-only takes recordings; in {self.layout} every speaker has a listener")


def main(argv: list[str] | None = None) -> int:
    """Parse, find the pairs, build each, write tables and report."""
    config = parse(Config, argv, prog="python -m dyad.prepare", description=(__doc__ or "").splitlines()[0])
    from dyad.provenance import atomic_path

    out = _check_folders(config)
    with atomic_path(out) as part:
        part.mkdir(parents=True)
        refused = (_from_recordings if config.layout == "recordings" else _from_challenge)(config, part, out)
    print(f"written to {out}")
    return 3 if refused else 0


def _from_recordings(config: Config, part: Path, out: Path) -> "dict[str, str]":
    """Pair files by name, build, split by a hash; returns what was refused."""
    from dyad.prepare.pairs import find_pairs

    pairs, unused = find_pairs(config.raw, skip=out)
    if not pairs:
        raise ValueError(f"{config.raw}: no video, sound or table in it; wanted files such as s01_speaker.mp4")
    built, refused = _build_all(pairs, part, config)
    _finish(config, part, out, split(built, config.val_share), refused, unused_files=unused)
    return refused


def _from_challenge(config: Config, part: Path, out: Path) -> "dict[str, str]":
    """Build the clips of a challenge's own splits; returns what was refused."""
    from functools import partial

    from dyad.layouts import recordings
    from dyad.prepare import challenge

    items = challenge.listed(config.raw, config.layout, allow_shared_subjects=config.allow_shared_subjects)
    choice = challenge.Choice(layout=config.layout, mirrored=config.mirrored)
    one = partial(challenge.attempt, out=part, limits=_limits(config), choice=choice)
    flat = [(name, item) for name, group in items.items() for item in group]
    splits: dict[str, list[Built]] = {name: [] for name in ("train", "val", *items)}
    refused: dict[str, str] = {}
    for (name, _), outcomes in zip(flat, _map(one, [i for _, i in flat], config.workers), strict=True):
        refused |= {key: o for key, o in outcomes.items() if isinstance(o, str)}
        splits[name] += [o for o in outcomes.values() if not isinstance(o, str)]
    taken = {b.session.id for group in splits.values() for b in group}
    notes = challenge.write_appropriate(config.raw, part, items, taken, choice) if taken else []
    both = [way for _, item in flat for way in (item, item.mirrored())]
    recordings.write(part, {way.id: way.occasion for way in both if way.id in taken})
    _finish(config, part, out, splits, refused, notes=notes)
    return refused


def _finish(
    config: Config,
    part: Path,
    out: Path,
    splits: "dict[str, list[Built]]",
    refused: "dict[str, str]",
    *,
    unused_files: "list[Path] | None" = None,
    notes: "list[str] | None" = None,
) -> None:
    """Print the report; write tables, report and run card."""
    from dyad.prepare import report
    from dyad.provenance import run_card, write_json

    summary = report.as_json(splits, refused, unused_files or [], notes or [])
    print(report.as_text(summary), flush=True)
    if not any(splits.values()):
        raise ValueError(f"{config.raw}: nothing usable, so nothing is written to {out}; the reasons stand above")
    _write(part, splits)
    card = run_card(command="dyad.prepare", config=as_dict(config))
    write_json(part / "report.json", {**summary, "run": card})


def _check_folders(config: Config) -> Path:
    """The dataset's folder, when it may be made or replaced; raises ValueError otherwise."""
    if not config.raw.is_dir():
        raise ValueError(f"{config.raw}: no such folder; give the folder of recordings")
    out = config.out.resolve()
    if config.raw.resolve().is_relative_to(out):
        raise ValueError(f"{config.out}: holds the recordings themselves; give another folder for the dataset")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{config.out}: is a file; give a folder for the dataset")
    if out.is_dir() and any(out.iterdir()) and not (out / "report.json").is_file():
        raise ValueError(f"{config.out}: is neither empty nor a dataset of this command; give another folder")
    return out


def _limits(config: Config) -> "Limits":
    from dyad.action_units import SEED17
    from dyad.prepare.build import Limits

    return Limits(
        min_s=config.min_seconds,
        max_mismatch_s=config.max_mismatch_seconds,
        au_names=SEED17.units,
        speakers_only=config.speakers_only,
    )


def _build_all(pairs: "list[Pair]", out: Path, config: Config) -> "tuple[list[Built], dict[str, str]]":
    """Build every pair into `out`; those that cannot be are returned as id → reason, the others are unaffected."""
    from functools import partial

    from dyad.prepare.build import attempt

    outcomes = _map(partial(attempt, out=out, limits=_limits(config)), pairs, config.workers)
    built = [o for o in outcomes if not isinstance(o, str)]
    return built, {p.id: o for p, o in zip(pairs, outcomes, strict=True) if isinstance(o, str)}


def _map(one: "Callable[[T], R]", work: "list[T]", workers: int) -> "list[R]":
    """Results in order, by `workers` processes."""
    if workers == 1:
        return [one(w) for w in work]
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(workers, len(work)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(one, work))


def split(built: "list[Built]", val_share: float) -> "dict[str, list[Built]]":
    """Train and validation by a hash of the id; two sessions or more give both at least one."""

    def place(one: "Built") -> float:
        return int.from_bytes(hashlib.sha256(one.session.id.encode()).digest()[:8]) / 2**64

    ordered = sorted(built, key=place)
    n_val = sum(place(one) < val_share for one in ordered)
    if val_share > 0 and len(ordered) > 1:
        n_val = min(max(n_val, 1), len(ordered) - 1)
    elif len(ordered) == 1:
        n_val = 0
    return {"train": ordered[n_val:], "val": ordered[:n_val]}


def _write(root: Path, splits: "dict[str, list[Built]]") -> None:
    """Write the tables of the splits; one without a session is an empty table."""
    from dyad.action_units import SEED17
    from dyad.layouts import processed

    for name, group in splits.items():
        sessions = [b.session for b in sorted(group, key=lambda b: b.session.id)]
        processed.write(root, name, sessions, empty_units=SEED17.units)


if __name__ == "__main__":
    run_main(main)
