"""Build the product's dataset from a folder of recordings.

python -m dyad.prepare RAW OUT

How files pair up by name: `dyad/prepare/pairs.py`; which tables are understood: `dyad/prepare/au_table.py`.
Status 0: every pair was taken; 3: some were refused and the rest is written; 2: nothing could be written.
OUT is built beside and renamed: after a kill it is as it was.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dyad.config import as_dict, parse, run_main

if TYPE_CHECKING:
    from dyad.prepare.build import Built
    from dyad.prepare.pairs import Pair


@dataclass(frozen=True, kw_only=True)
class Config:
    """From where, to where, and what still counts as a session."""

    raw: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RAW")]
    """Folder of recordings: <id>_speaker.mp4, <id>_speaker.wav (or the video's own sound), <id>_listener.csv."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder of the dataset; must be new, empty, or an earlier output of this command, which is then replaced."""
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


def main(argv: list[str] | None = None) -> int:
    """Parse, find the pairs, build each, write tables and report."""
    config = parse(Config, argv, prog="python -m dyad.prepare", description=(__doc__ or "").splitlines()[0])
    from dyad.prepare import report
    from dyad.prepare.pairs import find_pairs
    from dyad.provenance import atomic_path, run_card, write_json

    out = _check_folders(config)
    pairs, unused = find_pairs(config.raw, skip=out)
    if not pairs:
        raise ValueError(f"{config.raw}: no video, sound or table in it; wanted files such as s01_speaker.mp4")
    with atomic_path(out) as part:
        part.mkdir(parents=True)
        built, refused = _build_all(pairs, part, config)
        splits = split(built, config.val_share)
        summary = report.as_json(splits, refused, unused)
        print(report.as_text(summary), flush=True)
        if not built:
            raise ValueError(f"{config.raw}: nothing usable, so nothing is written to {out}; the reasons stand above")
        _write(part, splits)
        card = run_card(command="dyad.prepare", config=as_dict(config))
        write_json(part / "report.json", {**summary, "run": card})
    print(f"written to {out}")
    return 3 if refused else 0


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


def _build_all(pairs: "list[Pair]", out: Path, config: Config) -> "tuple[list[Built], dict[str, str]]":
    """Build every pair into `out`; those that cannot be are returned as id → reason, the others are unaffected."""
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    from dyad.action_units import SEED17
    from dyad.prepare.build import Limits, attempt

    limits = Limits(
        min_s=config.min_seconds,
        max_mismatch_s=config.max_mismatch_seconds,
        au_names=SEED17.units,
        speakers_only=config.speakers_only,
    )
    one = partial(attempt, out=out, limits=limits)
    if config.workers == 1:
        outcomes = [one(pair) for pair in pairs]
    else:
        with ProcessPoolExecutor(min(config.workers, len(pairs)), mp_context=get_context("spawn")) as pool:
            outcomes = list(pool.map(one, pairs))
    built = [o for o in outcomes if not isinstance(o, str)]
    return built, {p.id: o for p, o in zip(pairs, outcomes, strict=True) if isinstance(o, str)}


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
    """Write the tables of both splits; of a single session, validation is an empty table."""
    from dyad.action_units import SEED17
    from dyad.layouts import processed

    for name, group in splits.items():
        sessions = [b.session for b in sorted(group, key=lambda b: b.session.id)]
        processed.write(root, name, sessions, empty_units=SEED17.units)


if __name__ == "__main__":
    run_main(main)
