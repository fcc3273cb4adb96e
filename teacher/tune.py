"""Tune Qwen2.5-Omni with LoRA to tell a listener's action units from a speaker's video and voice.

    python -m teacher.tune --model tiny --dataset out/dyads --out out/teacher

Only LoRA and the read-out learn. Stop it whenever you like: the same command goes on where it was.
"""

from dataclasses import dataclass, field
from pathlib import Path

from dyad.config import parse, run_main
from teacher.window_spec import WindowSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base model, dataset and how long to tune."""

    dataset: Path
    """Folder that holds processed/train and processed/val."""
    out: Path
    """Teacher folder."""
    model: str = "tiny"
    """tiny (a random toy of the same classes), a hub id such as Qwen/Qwen2.5-Omni-7B, or a folder."""
    steps: int = 2000
    """Optimiser steps at most."""
    batch: int = 4
    """Windows per forward pass."""
    accumulate: int = 1
    """Forward passes per step."""
    learning_rate: float = 1e-3
    """Peak rate of AdamW."""
    window: WindowSpec = field(default_factory=WindowSpec)
    """How windows are cut."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_towers: bool = False
    """Adapt the audio and vision towers too."""
    width: int = 128
    """Width of the read-out."""
    span_frames: int = 31
    """Frames that the centred temporal layer sees."""
    dropout: float = 0.1
    """Of adapters and read-out."""
    ccc: float = 0.5
    """Weight of the CCC term beside cross-entropy."""
    validate_every: int = 50
    """Steps between validations and resume points."""
    patience: int = 6
    """Validations without a better macro CCC before it stops."""
    seed: int = 0
    """The same seed tunes the same teacher on the same machine."""
    threads: int = 2
    """Processor threads of torch."""

    def __post_init__(self) -> None:
        """Refuse what cannot tune."""
        if self.steps < 1 or self.batch < 1 or self.accumulate < 1 or self.span_frames % 2 == 0:
            raise ValueError("steps, batch and accumulate ≥ 1 and an odd span_frames are needed")


def main(argv: list[str] | None = None) -> int:
    """Parse and refuse before anything heavy is imported; then tune."""
    config = parse(Config, argv, prog="python -m teacher.tune", description=(__doc__ or "").splitlines()[0])
    for split in ("train", "val"):
        if not (config.dataset / "processed" / split).is_dir():
            raise ValueError(f"{config.dataset}: no processed/{split} there; make one with python -m dyad.synthetic")
    from teacher.tuner import Tuner

    tuner = Tuner(config)
    tuner.run()
    tuner.finish()
    return 0


if __name__ == "__main__":
    run_main(main)
