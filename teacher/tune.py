"""Tune Qwen2.5-Omni with LoRA to tell a listener's action units from a speaker's video and voice.

    python -m teacher.tune --model tiny --dataset out/dyads --out out/teacher
    accelerate launch --num_processes 4 -m teacher.tune --config configs/teacher/omni7b.yaml --dataset … --out …

Only LoRA and the read-out learn. Stop it whenever you like: the same command goes on where it was. On several GPUs
every process holds the model (DDP), or a share of it with `accelerate launch --config_file configs/teacher/fsdp.yaml`;
on processors alone it is `torchrun --nproc-per-node 2 -m teacher.tune …`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from dyad.augment import AugmentConfig
from dyad.config import parse, run_main
from teacher.loss_weights import LossWeights
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
    prompt: Path | None = None
    """Task prompt, a text file with {units} in it; none is teacher/prompt.txt."""
    steps: int = 2000
    """Optimiser steps at most."""
    batch: int = 4
    """Windows per forward pass."""
    accumulate: int = 1
    """Forward passes per step."""
    learning_rate: float = 1e-3
    """Peak rate of AdamW."""
    window: WindowSpec = field(default_factory=WindowSpec)
    """How windows are cut; this is their full length."""
    window_min_s: float = 5.0
    """The shortest windows, seconds; every step draws a length between it and the full one."""
    stratify: float = 1.0
    """How much more often windows with rare units are drawn; 0 draws all alike."""
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(drop_sight=0, drop_sound=0))
    """How windows are changed."""
    mask_bands: int = 16
    """Widest masked stripe of the 128 mel bands (SpecAugment); 0 is off."""
    mask_columns: int = 30
    """Longest masked stretch of the spectrum, 10 ms each."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_towers: bool = False
    """Adapt the audio and vision towers too."""
    horizons: int = 9
    """Frames that every anchor answers for: its own and those that follow it."""
    token_width: int = 32
    """Width of a media token's view in the read-out."""
    width: int = 128
    """Width of the read-out."""
    span_frames: int = 31
    """Frames that the centred temporal layer sees."""
    dropout: float = 0.1
    """Of adapters and read-out."""
    loss: LossWeights = field(default_factory=LossWeights)
    """Terms of the loss. The speaker's units are known for synthetic dyads, and from speaker_au/<id>.npz."""
    validate_every: int = 50
    """Steps between validations and resume points."""
    patience: int = 6
    """Validations without a better macro CCC before it stops."""
    seed: int = 0
    """The same seed tunes the same teacher on the same machine."""
    threads: int = 2
    """Processor threads of torch."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, a third more time; none is on with a GPU."""

    def __post_init__(self) -> None:
        """Refuse what cannot tune."""
        if min(self.steps, self.batch, self.accumulate, self.horizons) < 1 or self.span_frames % 2 == 0:
            raise ValueError("steps, batch, accumulate and horizons ≥ 1 and an odd span_frames are needed")
        if min(self.window_min_s, self.stratify, self.mask_bands, self.mask_columns) < 0:
            raise ValueError("window_min_s, stratify, mask_bands and mask_columns ≥ 0 are needed")


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
