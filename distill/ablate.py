"""Which choice pays? Train arms that differ in one thing, over several seeds, and compare them session by session.

    python -m distill.ablate --arms configs/ablation/losses.yaml --dataset out/dyads --labels out/labels --out out/runs

Every seed opens its eyes once, for all arms; then each arm trains from the same start on the same clips. Held-out
sessions are scored with the float student, or with --engines through the INT8 engine that would ship. Differences to
the first arm carry intervals over sessions, averaged over seeds. Finished runs are kept: the same command goes on.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dyad.config import load, parse, run_main


@dataclass(frozen=True, kw_only=True)
class Arms:
    """A file in configs/ablation: what is asked, what all arms share, and how each differs."""

    question: str
    """One sentence, printed above the table."""
    base: Path
    """Training preset that all arms share."""
    shared: dict[str, Any] = field(default_factory=dict[str, Any])
    """Settings in which all arms differ from the preset."""
    arms: dict[str, dict[str, Any]]
    """Name → settings that differ from the base, as in a preset; the first arm is what the others are compared with."""

    def __post_init__(self) -> None:
        """Refuse what compares nothing."""
        if len(self.arms) < 2:
            raise ValueError(f"two arms or more are needed, got {list(self.arms)}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Dataset, arms, seeds."""

    arms: Path
    """File in configs/ablation."""
    dataset: Path
    """Folder that holds processed/train and processed/val."""
    out: Path
    """Folder of the runs; table.md and results.json are written there."""
    labels: Path | None = None
    """Soft labels that arms use unless they name others."""
    extra: Path | None = None
    """Speakers without annotated listeners, for arms that set `extra: true`."""
    extra_labels: Path | None = None
    """Their soft labels."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of every arm each. Processes may share the work, each with some; a last call with all compares."""
    horizon: int = 4
    """Look-ahead of the scores, frames."""
    engines: bool = False
    """Score through INT8 engines instead of the float student."""
    resamples: int = 1000
    """Bootstrap resamples of sessions."""
    bound_listeners: int = 100
    """Listeners averaged for the attainable skill of synthetic sessions; 0 leaves the bound out."""
    report: Path | None = None
    """Markdown file whose part between <!-- arms-file-name:begin --> and :end --> becomes the table."""
    results: Path | None = None
    """Where results.json is written besides OUT."""
    threads: int = 2
    """Processor threads of torch."""
    workers: int = 2
    """Processes that decode and predict."""

    def __post_init__(self) -> None:
        """Refuse what cannot be compared."""
        if not self.seeds or self.resamples < 1 or self.horizon < 0:
            raise ValueError("one seed or more, resamples ≥ 1 and horizon ≥ 0 are needed")


def main(argv: list[str] | None = None) -> int:
    """Parse and refuse before torch is imported; train what is missing; print and write the table."""
    config = parse(Config, argv, prog="python -m distill.ablate", description=(__doc__ or "").splitlines()[0])
    arms = load(Arms, config.arms)
    from distill import comparison
    from distill.arms import train_all

    if config.report is not None:
        comparison.around(config.report, config.arms.stem)  # refuse a file without marks before hours of training
    runs = train_all(config, arms)
    made = comparison.compare(config, arms, runs)
    print(made.table())
    made.write(config.out)
    if config.results is not None:
        made.write_results(config.results)
    if config.report is not None:
        comparison.put_between(config.report, config.arms.stem, made.table())
    return 0


if __name__ == "__main__":
    run_main(main)
