"""Distil a student from hard and soft labels, then quantise it.

    python -m distill.train --dataset out/dyads --labels out/labels --out out/student

Writes OUT/checkpoint (what ships; INT8-aware when --qat-steps > 0), OUT/float (its float parent), metrics.jsonl,
TensorBoard events and config.yaml. Stop it whenever you like: the same command goes on where it was, bit for bit.
Several GPUs: accelerate launch --num_processes 4 -m distill.train …; the batch grows with their number.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distill.baselines.settings import BASELINES, TransVaeSettings, unused
from distill.weights import LossWeights
from dyad.augment import AugmentConfig
from dyad.config import load, parse, run_main
from student.spec import StudentSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Dataset, labels and how long to train: the rest has good defaults."""

    dataset: Path
    """Folder that holds processed/train and processed/val."""
    out: Path
    """Folder of the run."""
    labels: Path | None = None
    """Soft labels of python -m teacher.label; without them the student learns from hard labels alone."""
    extra: Path | None = None
    """Another dataset, of speakers whose listeners nobody annotated: learned from the teacher's labels alone."""
    extra_labels: Path | None = None
    """Soft labels of `extra`."""
    extra_share: float = 0.33
    """Share of the clips that are drawn from `extra`."""
    student: Path = Path("configs/student/nano.yaml")
    """Preset of the student."""
    eyes: Path | None = None
    """Float checkpoint whose eyes are taken over, instead of opening them anew; a baseline takes another baseline's
    folder."""
    eyes_steps: int = 400
    """Steps on single frames before the clips, where the speaker's own units are known; 0 skips them."""
    freeze_eyes: bool = False
    """Keep the eyes as they are after that until quantisation: clips then train about five times faster."""
    qat_eyes: bool = True
    """Let quantisation-aware steps train the eyes; without, they are calibrated only, and steps take a third."""
    steps: int = 2000
    """Float training steps."""
    qat_steps: int = 200
    """Quantisation-aware steps after them; 0 leaves the student float."""
    batch: int = 8
    """Clips per step."""
    clip_frames: int = 160
    """Frames per clip, 30 a second."""
    learning_rate: float = 2e-3
    """Peak rate of AdamW."""
    qat_learning_rate: float = 2e-4
    """Peak rate while quantisation-aware."""
    weight_decay: float = 0.02
    """Of AdamW."""
    stratify: float = 1.0
    """How much rare units attract the sampler; 0 draws all windows alike."""
    ema: float = 0.995
    """Decay of the averaged weights that are validated and shipped; 0 ships the last ones."""
    loss: LossWeights = field(default_factory=LossWeights)
    """Weights of the loss terms."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Strengths of the augmentations."""
    validate_every: int = 250
    """Steps between validations and between resume points."""
    validate_sessions: int = 0
    """Sessions that these score; 0 takes all."""
    seed: int = 0
    """The same seed trains the same student on the same machine."""
    device: str = "auto"
    """auto: a GPU where there is one; else cpu, cuda, cuda:1 …"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the float steps; bfloat16 is automatic mixed precision."""
    threads: int = 2
    """Processor threads of torch."""
    workers: int = 2
    """Processes that decode sessions."""
    baseline: Literal["transvae-online", "transvae-offline"] | None = None
    """Train this model of the field instead of a student, its eyes opened as a student's are (eyes_steps, freeze_eyes);
    OUT then holds its answers to the val split too."""
    transvae: TransVaeSettings = field(default_factory=TransVaeSettings)
    """Dials of the baseline."""

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        if self.steps < 1 or self.qat_steps < 0 or self.batch < 1 or self.clip_frames < 8:
            raise ValueError("steps ≥ 1, qat_steps ≥ 0, batch ≥ 1 and clip_frames ≥ 8 are needed")
        if not 0 < self.extra_share < 1:
            raise ValueError(f"extra_share must be between 0 and 1, got {self.extra_share}")
        if (self.extra is None) != (self.extra_labels is None):
            raise ValueError("extra and extra_labels go together: nobody annotated those listeners")
        if self.baseline not in (None, *BASELINES):
            raise ValueError(f"unknown baseline {self.baseline!r}; known: {', '.join(BASELINES)}")
        if self.baseline and (self.labels or self.extra):
            raise ValueError("a baseline learns from hard labels alone; leave --labels and --extra out")
        if idle := unused(self):
            raise ValueError(f"{self.baseline or 'a student'} has no use for {', '.join(idle)}; leave that out")
        if self.baseline == "transvae-online" and self.clip_frames % self.transvae.window_frames:
            window = self.transvae.window_frames
            raise ValueError(f"clip_frames {self.clip_frames} is not a multiple of the window of {window} frames")


def main(argv: list[str] | None = None) -> int:
    """Parse and refuse before torch is imported; then train."""
    config = parse(Config, argv, prog="python -m distill.train", description=(__doc__ or "").splitlines()[0])
    spec = load(StudentSpec, config.student)
    for split in ("train", "val"):
        if not (config.dataset / "processed" / split).is_dir():
            raise ValueError(f"{config.dataset}: no processed/{split} there; make one with python -m dyad.synthetic")
    if config.baseline:
        from distill.baselines import run

        run.train(config)
        return 0
    from distill.trainer import Trainer

    trainer = Trainer(config, spec)
    trainer.run()
    if trainer.crew.leads:
        trainer.ship()
    return 0


if __name__ == "__main__":
    run_main(main)
