"""Make conversations with known ground truth.

python -m dyad.synthetic --out out/dyads --sessions 24 --seed 7
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dyad.clock import FPS
from dyad.config import as_dict, parse, run_main


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

    def __post_init__(self) -> None:
        """Refuse what makes no dataset."""
        if self.sessions < 2 or self.seconds < 2 or not 0 < self.val_share < 1:
            raise ValueError("sessions ≥ 2, seconds ≥ 2 and 0 < val_share < 1 are needed")


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
    sessions = make_all(jobs, config.workers)
    held_out = max(1, round(config.val_share * len(sessions)))
    processed.write(config.out, "train", sessions[:-held_out])
    processed.write(config.out, "val", sessions[-held_out:])
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
    return 0


if __name__ == "__main__":
    run_main(main)
