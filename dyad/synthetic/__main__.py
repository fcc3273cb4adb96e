"""Make conversations with known ground truth.

python -m dyad.synthetic --out out/dyads --sessions 24 --seed 7
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dyad.clock import FPS
from dyad.config import as_dict, parse, run_main

if TYPE_CHECKING:
    from dyad.session import Session


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many conversations, how long, and where."""

    out: Path
    """Folder of the dataset; made when missing."""
    sessions: int = 24
    """Conversations, validation included."""
    seconds: float = 60.0
    """Length of each, seconds."""
    seed: int = 0
    """The same seed gives the same dataset."""
    val_share: float = 0.2
    """Share of sessions for validation; their speakers and listeners are met nowhere else."""
    voice: Literal["auto", "espeak", "formant"] = "auto"
    """espeak-ng where it is installed, else our own formant synthesiser."""
    media: bool = True
    """Draw and voice the speaker; without it only labels and truth are written."""
    workers: int = 2
    """Processes."""
    report_bound: bool = False
    """Also print how much of the validation listeners any causal predictor could explain (a second per session)."""

    def __post_init__(self) -> None:
        """Refuse what makes no dataset."""
        if self.sessions < 2 or self.seconds < 2 or not 0 < self.val_share < 1:
            raise ValueError("sessions ≥ 2, seconds ≥ 2 and 0 < val_share < 1 are needed")
        if self.seed < 0 or self.workers < 1:
            raise ValueError(f"seed ≥ 0 and workers ≥ 1 are needed, got seed {self.seed} and workers {self.workers}")


def main(argv: list[str] | None = None) -> int:
    """Parse, make, write the tables and the run card."""
    config = parse(Config, argv, prog="python -m dyad.synthetic", description=(__doc__ or "").splitlines()[0])
    from dyad.layouts import processed
    from dyad.provenance import run_card, write_json
    from dyad.synthetic.generate import Job, make_all
    from dyad.synthetic.voice import voice_kind

    voice, n_frames = voice_kind(config.voice), int(config.seconds * FPS)
    jobs = [
        Job(f"dyad_{config.seed}_{i:05d}", config.out, (config.seed, i), n_frames, voice, config.media)
        for i in range(config.sessions)
    ]
    started_s = time.monotonic()
    sessions: list[Session] = []
    for session in make_all(jobs, config.workers):
        sessions.append(session)
        if len(sessions) % max(1, len(jobs) // 10) == 0:
            print(f"{len(sessions)}/{len(jobs)} sessions, {time.monotonic() - started_s:.0f} s", flush=True)
    held_out = min(max(1, round(config.val_share * len(sessions))), len(sessions) - 1)
    train, val = sessions[:-held_out], sessions[-held_out:]
    processed.write(config.out, "train", train)
    processed.write(config.out, "val", val)
    settings = as_dict(config) | {"voice_used": voice}
    write_json(config.out / "run.json", run_card(command="dyad.synthetic", config=settings))
    took_s = time.monotonic() - started_s
    minutes = len(sessions) * n_frames / FPS / 60
    print(f"{len(sessions)} sessions ({held_out} for validation), {minutes:.1f} minutes, voice: {voice}")
    print(f"{minutes * 60 / took_s:.1f} x real time with {config.workers} workers", end="")
    if config.media:
        size = sum(p.stat().st_size for j in jobs for p in (config.out / "media").glob(f"{j.id}_speaker.mp4"))
        print(f", {size / 1e6 / minutes:.2f} MB of video per minute", end="")
    print(f"\nwritten to {config.out}", flush=True)
    if config.report_bound:
        _report_bound(config.out, train, val)
    return 0


def _report_bound(root: Path, train: "list[Session]", val: "list[Session]") -> None:
    """Print the attainable skill on `val`, against the mean of `train`, now and at the longest horizon."""
    import numpy as np

    from dyad.synthetic.bound import attainable_skill

    mean = np.mean([session.prob.mean(axis=0) for session in train], axis=0)
    for horizon_frames in (0, 8):
        skill = attainable_skill(root, val, mean, horizon_frames)
        print(f"attainable skill at +{horizon_frames} frames: {skill:.2f} of the listeners' variance")


if __name__ == "__main__":
    run_main(main)
