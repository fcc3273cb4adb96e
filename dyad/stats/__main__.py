"""Say what is in a dataset: how often listeners move what, and how long after the speaker.

python -m dyad.stats --dataset out/dyads --out out/stats

Prints the tables; writes OUT/stats.json (all figures and a run card), OUT/stats.html (with pictures, nothing else is
needed) and OUT/loss.yaml (weights for rare units).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dyad.config import as_dict, parse, run_main


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which dataset, and how carefully lags are looked for."""

    dataset: Path
    """Folder that holds processed/train and processed/val."""
    out: Path
    """Folder of the results."""
    split: Literal["train", "val", "test", "all"] = "train"
    """Which sessions; weights for a loss are those of the training split."""
    max_lag_s: float = 3.0
    """Longest lag, seconds; a listener who is earlier is looked for up to one second."""
    surrogates: int = 200
    """How often speakers are dealt to other listeners to know chance."""
    lag_sessions: int = 400
    """Sessions that lags are looked for in, at most."""
    lag_seconds: float = 120.0
    """Seconds of each of them, from its start."""
    sound: bool = True
    """Read the speakers' sound, too."""
    seed: int = 0
    """The same seed deals the same surrogates."""

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if not 0.1 <= self.max_lag_s <= 30 or self.lag_seconds < 2 or self.lag_sessions < 4:
            raise ValueError("max_lag_s from 0.1 to 30, lag_seconds ≥ 2 and lag_sessions ≥ 4 are needed")
        if self.surrogates < 19:
            raise ValueError(f"surrogates {self.surrogates}: with fewer than 19 nothing can be told from chance at 5 %")


def main(argv: list[str] | None = None) -> int:
    """Parse, read, measure, print and write."""
    config = parse(Config, argv, prog="python -m dyad.stats", description=(__doc__ or "").splitlines()[0])
    from dyad.action_units import SEED17
    from dyad.layouts import processed
    from dyad.layouts.challenge import SPLITS
    from dyad.provenance import atomic_path, run_card, write_json
    from dyad.stats import page, report, survey

    root = processed.root_of(config.dataset)
    names = [config.split] if config.split != "all" else [s for s in SPLITS if (root / "processed" / s).is_dir()]
    sessions = [s for name in names or ["train"] for s in processed.iterate(root, name) if s.n_frames]
    if not sessions:
        raise ValueError(f"{root}/processed/{config.split}: holds no session; build it with python -m dyad.prepare")
    settings = survey.LagSettings(
        max_lag_s=config.max_lag_s,
        surrogates=config.surrogates,
        sessions=config.lag_sessions,
        seconds=config.lag_seconds,
        sound=config.sound,
        seed=config.seed,
    )
    found = survey.take(root, sessions, SEED17.units, settings)
    title = f"{root} ({config.split})"
    text = report.as_text(found, title)
    print(text, flush=True)
    card = run_card(command="dyad.stats", config=as_dict(config))
    write_json(config.out / "stats.json", {**survey.as_json(found), "run": card})
    for name, content in (("loss.yaml", report.loss_yaml(found)), ("stats.html", page.render(found, title, text))):
        with atomic_path(config.out / name) as part:
            part.write_text(content, encoding="utf8")
    print(f"\nwritten to {config.out}: stats.json, stats.html, loss.yaml")
    return 0


if __name__ == "__main__":
    run_main(main)
