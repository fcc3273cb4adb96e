"""Score a student, an engine or stored predictions beside what any model must beat, with intervals over sessions.

    python -m distill.evaluate --engine out/engine --dataset out/dyads --out out/evaluation

Writes OUT/report.json, OUT/report.html and OUT/predictions. Means, mimicry and the stochastic head come from the
training split, scores from sessions that training never saw, and thresholds of F1 from validation: those of a test
split from `val`, those of a session of `val` from its other recordings (cross-fitted), so that no session is scored
with a threshold that saw it. An engine is run by `python -m deploy.predict` in a process of its own: what is scored is
the very artefact that ships. `--samples 10` draws ten reactions per speaker around the deterministic prediction, which
stays what every other table scores. `--baseline DIR` adds another system's row to every table, and the difference to it
in every score: DIR is the --out of another evaluation of the same split, or holds DIR/predictions, a store of
`dyad.predictions`; optionally DIR/samples/<session>.npz with `samples` [K, T, A], row t shown at frame t, and
DIR/baseline.json with its `name`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dyad.config import parse, run_main

if TYPE_CHECKING:
    from distill.report import Report


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to score, on which sessions, and where the report goes."""

    dataset: Path
    """Folder that holds processed/train and the split to score."""
    out: Path
    """Folder of the report."""
    checkpoint: Path | None = None
    """Student of python -m distill.train: give this,"""
    engine: Path | None = None
    """or an engine of python -m deploy.build_engine,"""
    predictions: Path | None = None
    """or a store of python -m deploy.predict; --samples needs training sessions in it too."""
    baseline: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Folder of another system for a row in every table; may be given several times."""
    split: str = "val"
    """Sessions to score."""
    horizon: int = 4
    """Look-ahead of the main table, frames; the table of horizons holds them all."""
    resamples: int = 1000
    """Draws of recordings behind every interval."""
    bound_sessions: int = 8
    """Synthetic sessions on which the attainable bound is computed; 0 leaves it out."""
    bound_listeners: int = 100
    """Listeners behind the attainable bound of one session."""
    fitting_sessions: int = 8
    """Training sessions on which a checkpoint's stochastic head is fitted; an engine uses all."""
    samples: int = 0
    """Reactions drawn per speaker from the stochastic head; 0: deterministic alone."""
    temperature: float = 1.0
    """How far draws deviate: 0 not at all, 1 as training listeners did."""
    robot: str = "sim"
    """Whose limits the motion is held against: a name in configs/robots, or a calibration.yaml."""
    tolerance_frames: int = 9
    """How far the onsets of two events may be apart to be the same."""
    appropriate_sessions: int = 64
    """Sessions on which FRCorr, FRDist and FRSyn are computed."""
    seed: int = 0
    """Of resamples, noise and drawn reactions."""
    workers: int = 2
    """Processes that decode and predict."""
    threads: int = 2
    """Processor threads of torch."""

    def __post_init__(self) -> None:
        """Refuse what cannot be scored."""
        given = [n for n in ("checkpoint", "engine", "predictions") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of --checkpoint, --engine and --predictions; got {given or 'none'}")
        if self.resamples < 1 or self.fitting_sessions < 1 or self.bound_sessions < 0 or self.bound_listeners < 1:
            raise ValueError("resamples, fitting_sessions and bound_listeners ≥ 1, bound_sessions ≥ 0 are needed")
        if min(self.samples, self.temperature, self.tolerance_frames, self.appropriate_sessions) < 0:
            raise ValueError("samples, temperature, tolerance_frames and appropriate_sessions ≥ 0 are needed")


def evaluate(config: Config) -> "Report":
    """Predict, score, and write the report."""
    from distill import evidence, report

    gathered = evidence.gather(config)
    made = report.make(gathered, config)
    report.write(made, config.out)
    return made


def main(argv: list[str] | None = None) -> int:
    """Parse and refuse before anything heavy is imported; then score."""
    config = parse(Config, argv, prog="python -m distill.evaluate", description=(__doc__ or "").splitlines()[0])
    made = evaluate(config)
    print(made.table())
    print(f"report: {config.out / 'report.html'}")
    return 0


if __name__ == "__main__":
    run_main(main)
