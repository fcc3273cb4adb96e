"""Label a dataset with a tuned teacher: soft action units and their uncertainty, for every session at 30 Hz.

    python -m teacher.label --teacher out/teacher --dataset out/dyads --out out/labels

Resumable: sessions already in the store are kept, a damaged one is made again. `--engine ray` spreads the sessions over
the GPUs of a machine or a cluster, `--backend vllm` serves a merged teacher. Afterwards every label is judged, and
sessions not worth learning from are listed with the reason (OUT/quality.json). Exit code 3 when a session's media
failed; the others are labelled all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dyad.config import parse, run_main
from dyad.session import Clip
from teacher.quality import Limits

if TYPE_CHECKING:
    from teacher.labeller import Outcome


@dataclass(frozen=True, kw_only=True)
class Config:
    """Teacher, dataset and where the labels go."""

    teacher: Path
    """Folder written by python -m teacher.tune or teacher.merge."""
    dataset: Path
    """Folder that holds processed/."""
    base: str | None = None
    """Where the base lies, if not where it was when the teacher was tuned: a hub id or a folder."""
    out: Path
    """Soft-label store."""
    split: Literal["train", "val", "all"] = "all"
    """Which sessions."""
    only: str | None = None
    """Label this session alone, again if it is there."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """What runs the thinker; vllm wants a merged teacher and a GPU."""
    engine: Literal["local", "ray"] = "local"
    """This process, or Ray actors, one to a GPU."""
    ray_address: str | None = None
    """Cluster to join, such as auto; none starts Ray on this machine."""
    actors: int = 0
    """Ray actors; 0 takes one to a GPU, or one where there is none."""
    hop_frames: int = 150
    """Frames between windows; overlapping windows are blended."""
    sub_networks: int = 8
    """Stochastic passes of the read-out; with the windows' and anchors' disagreement they tell the uncertainty."""
    batch: int = 4
    """Windows per forward pass of the transformers back end."""
    decoders: int = 2
    """Sessions decoded ahead of the model."""
    threads: int = 2
    """Processor threads of torch."""
    quality: Limits = field(default_factory=Limits)
    """When a session's labels are not worth learning from."""
    describe: bool = False
    """Also ask the base model for a sentence and an emotion per window (OUT/events)."""
    describe_with: Literal["transformers", "vllm"] = "transformers"
    """What runs the base model for that; transformers wants the unmerged teacher."""
    dry_run: bool = False
    """Print what it would cost and stop."""

    def __post_init__(self) -> None:
        """Refuse what cannot label."""
        if min(self.hop_frames, self.batch, self.decoders, self.threads) < 1 or min(self.sub_networks, self.actors) < 0:
            raise ValueError("hop_frames, batch, decoders, threads ≥ 1 and sub_networks, actors ≥ 0 are needed")


def main(argv: list[str] | None = None) -> int:
    """Parse, label what is not labelled yet, judge, report."""
    config = parse(Config, argv, prog="python -m teacher.label", description=(__doc__ or "").splitlines()[0])
    if not (config.teacher / "teacher.json").is_file():
        raise ValueError(f"{config.teacher}: no teacher there; make one with python -m teacher.tune")
    from dyad.layouts import processed

    clips = processed.clips(config.dataset, config.split, config.only)
    if config.dry_run:
        from teacher import plan

        batch = config.batch if config.backend == "transformers" else 1  # vLLM takes every window for itself
        plan.print_plan(config.teacher, clips, config.hop_frames, batch=batch, sub_networks=config.sub_networks)
        return 0
    if config.describe:
        from teacher import describing

        describing.require_language(config)
    failed = label(config, clips)
    if config.describe:
        failed |= describe(config, clips)
    for session_id, reason in failed.items():
        print(f"left out {session_id}: {reason}")
    return 3 if failed else 0


def label(config: Config, clips: list[Clip]) -> dict[str, str]:
    """Label what is outstanding and judge the store; returns session → fault."""
    from teacher import labeller, quality

    store = labeller.open_store(config)
    todo = labeller.outstanding(store, clips, again=config.only is not None)
    if config.engine == "ray":
        from teacher import cluster

        outcomes = cluster.run(config, todo)
    else:
        outcomes = labeller.Labeller(config).run(todo) if todo else iter(())
    failed = follow(outcomes, "labelled", len(todo), len(clips), config.out)
    quality.judge_store(store, config.dataset, config.quality)
    return failed


def describe(config: Config, clips: list[Clip]) -> dict[str, str]:
    """Describe what is outstanding, after the labels; returns session → fault."""
    from teacher import describing

    store = describing.open_store(config)
    todo = describing.outstanding(store, clips, again=config.only is not None)
    outcomes = describing.run(config, store, todo) if todo else iter(())
    return follow(outcomes, "described", len(todo), len(clips), store.folder)


def follow(outcomes: "Iterator[Outcome]", done: str, todo: int, wanted: int, place: Path) -> dict[str, str]:
    """Show progress and tell the end of it; returns session → fault."""
    from tqdm import tqdm

    failed = {o.session: o.fault for o in tqdm(outcomes, total=todo, unit="session", mininterval=2.0) if o.fault}
    print(f"{todo - len(failed)} sessions {done}, {wanted - todo} already there, {len(failed)} left out: {place}")
    return failed


if __name__ == "__main__":
    run_main(main)
