"""Label a dataset with a tuned teacher: soft action units and their uncertainty, for every session at 30 Hz.

    python -m teacher.label --teacher out/teacher --dataset out/dyads --out out/labels

Resumable: sessions already in the store are kept, a damaged one is made again. Exit code 3 when a session's media
failed; the others are labelled all the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dyad.config import as_dict, parse, run_main


@dataclass(frozen=True, kw_only=True)
class Config:
    """Teacher, dataset and where the labels go."""

    teacher: Path
    """Folder written by python -m teacher.tune."""
    dataset: Path
    """Folder that holds processed/."""
    out: Path
    """Soft-label store."""
    split: Literal["train", "val", "all"] = "all"
    """Which sessions."""
    only: str | None = None
    """Label this session alone, again if it is there."""
    hop_frames: int = 150
    """Frames between windows; overlapping windows are blended and tell the uncertainty."""
    passes: int = 1
    """Passes in all, the first without dropout, the others with; more tell the uncertainty better."""
    batch: int = 4
    """Windows per forward pass."""
    threads: int = 2
    """Processor threads of torch."""
    dry_run: bool = False
    """Print what it would cost and stop."""


def main(argv: list[str] | None = None) -> int:
    """Parse, label what is not labelled yet, report."""
    config = parse(Config, argv, prog="python -m teacher.label", description=(__doc__ or "").splitlines()[0])
    if not (config.teacher / "teacher.json").is_file():
        raise ValueError(f"{config.teacher}: no teacher there; make one with python -m teacher.tune")
    from teacher import labeller

    sessions = labeller.select(config.dataset, config.split, config.only)
    if config.dry_run:
        labeller.print_cost(config.teacher, sessions, config.hop_frames)
        return 0
    done, kept, failed = labeller.label_all(config, sessions, as_dict(config))
    for session_id, reason in failed.items():
        print(f"left out {session_id}: {reason}")
    print(f"{done} sessions labelled, {kept} already there, {len(failed)} left out: {config.out}")
    return 3 if failed else 0


if __name__ == "__main__":
    run_main(main)
