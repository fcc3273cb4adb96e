"""The REACT challenge's baseline trained on the student's own sessions, and scored beside it, several seeds of each.

    python -m benchmarks.transvae_row    # dataset and students of docs/ablation.md; twenty minutes of a core per run

Trains Trans-VAE with configs/distill/transvae.yaml: online with every seed, offline with some, through the eyes that
the online run of the same seed opened. Finished runs are kept: the same command goes on. Students are runs of
`distill.ablate`, scored through their INT8 engines. Intervals are over held-out sessions, averaged over seeds;
differences to the online baseline are paired. The offline model answers whole clips, normalised over their session: it
has seen all that comes, and stands in a table of its own at 0 ms. A run ships its last weights. `training` holds its
course on the first held-out sessions, how far its draws differ, the KL, and whether the curve was flat at the end.

Equal are sessions, crops, listeners' labels, and that eyes first learn the speakers' own units and are then kept, which
the published recipe does not know. Unequal is the length: the students' eyes have three times the steps and their clips
half as many frames again (`training`), so the baseline's row is a lower bound. Then `distill.evaluate` scores the first
seeds in full: WORK/evaluation/report.html.
Writes benchmarks/results/transvae.json; the last line is one JSON object.
Shapes: S held-out sessions, H horizons, A units.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill import arms, comparison
from distill.arms import Run
from distill.baselines import progress
from distill.baselines import run as training
from distill.baselines.settings import ONLINE_ONLY
from distill.batches import known_mean
from distill.comparison import SCORES
from distill.evaluate import Config as EvaluateConfig
from distill.evaluate import evaluate
from distill.report import Report
from distill.train import Config as TrainConfig
from distill.validate import ahead
from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.config import as_dict, from_dict, load, parse, read_yaml, run_main
from dyad.layouts import processed, recordings
from dyad.metrics import agreement
from dyad.metrics.classification import average_precision
from dyad.predictions import PredictionStore
from dyad.provenance import read_json, run_card, write_json
from dyad.session import Session

Floats = NDArray[np.float32]
ROOT = Path(__file__).resolve().parent.parent
NAMES = {"transvae-online": "Trans-VAE online", "transvae-offline": "Trans-VAE offline"}
QUESTION = "How does the challenge's baseline do on the students' sessions? Students through their INT8 engines."


@dataclass(frozen=True, kw_only=True)
class Config:
    """Dataset, runs and how long to train."""

    dataset: Path = Path("out/distillation/dyads")
    """Folder that holds processed/train and processed/val."""
    students: Path = Path("out/distillation/distillation")
    """Runs of python -m distill.ablate --engines on this dataset."""
    arms: tuple[str, ...] = ("hard labels only", "distilled")
    """Which of them stand beside the baseline; the last one is evaluated in full."""
    work: Path = Path("out/distillation/transvae")
    """Where the baseline's runs go."""
    preset: Path = ROOT / "configs" / "distill" / "transvae.yaml"
    """How it trains."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the online model."""
    student_seeds: tuple[int, ...] = (0, 1, 2)
    """Of the students beside it."""
    offline_seeds: tuple[int, ...] = (0,)
    """Of the offline one."""
    steps: int | None = None
    """Of the online model, instead of the preset's."""
    offline_steps: int = 1000
    """Of the offline one; a step answers each clip at once, and costs a quarter of the online model's."""
    horizon: int = 4
    """Look-ahead of the main table, frames."""
    resamples: int = 1000
    """Bootstrap resamples of sessions."""
    threads: int = 1
    """Processor threads of torch."""
    workers: int = 1
    """Processes that decode."""
    full: bool = True
    """Evaluate the first seeds with distill.evaluate as well."""
    predictions: Path | None = None
    """Store of python -m deploy.predict of the student evaluated in full, both splits; else its engine is run."""
    results: Path = ROOT / "benchmarks" / "results" / "transvae.json"
    """Results file."""
    report: Path | None = ROOT / "docs" / "metrics.md"
    """Markdown whose part between <!-- transvae:begin --> and <!-- transvae:end --> is replaced by the tables."""


def settings(config: Config, baseline: str, seed: int) -> TrainConfig:
    """The training configuration of one run; the offline model answers for what it sees, normalised by its session."""
    content = read_yaml(config.preset) | {
        "dataset": str(config.dataset), "out": str(config.work / baseline / str(seed)), "baseline": baseline,
        "seed": seed, "threads": config.threads, "workers": config.workers, "device": "cpu",
    }  # fmt: skip
    if baseline == "transvae-offline":
        content["steps"] = config.offline_steps
        dials = content.get("transvae", {})
        content["transvae"] = {k: v for k, v in dials.items() if f"transvae.{k}" not in ONLINE_ONLY}
    elif config.steps is not None:
        content["steps"] = config.steps
    made = from_dict(TrainConfig, content, where=str(config.preset))
    if baseline == "transvae-online":
        return made
    opened = config.work / "transvae-online" / str(seed)
    made = replace(made, eyes=opened, eyes_steps=0) if seed in config.seeds else made
    return replace(made, transvae=replace(made.transvae, ahead_frames=0, normalise="session"))


def trained(train: TrainConfig) -> Path:
    """The run's folder with its answers, trained unless it is there; raises ValueError for one of other settings."""
    card = train.out / "baseline.json"
    if not (card.is_file() and "samples" in read_json(card)):
        print(f"--- {train.baseline}, seed {train.seed}", flush=True)
        training.train(train)
    kept, wanted = as_dict(load(TrainConfig, train.out / "config.yaml")), as_dict(train)
    if odd := [k for k in training.USED if kept[k] != wanted[k]]:
        raise ValueError(f"{train.out}: was trained with another {', '.join(odd)}; remove it or give another --work")
    return train.out


def scored(folder: Path, name: str, seed: int, horizon: int, sessions: Sequence[Session], mean: Floats) -> Run:
    """Sums [S, 1, A, 8] and average precision [1, A] of a folder's answers at one horizon, as a student's are."""
    store = PredictionStore.open(folder / "predictions", au_names=SEED17.units)
    column = store.horizons.index(horizon)
    said = [store.read(s.id) for s in sessions]
    pairs = [ahead(p.prob, s.prob, column, horizon) for p, s in zip(said, sessions, strict=True)]
    sums = np.stack([agreement.sums(guess, true, mean) for guess, true in pairs])
    active = [ahead(p.act_prob, s.act, column, horizon) for p, s in zip(said, sessions, strict=True)]
    guess, true = (np.concatenate(x) for x in zip(*active, strict=True))
    precision = np.array([average_precision(guess[:, a], true[:, a]) for a in range(true.shape[1])])
    return Run(name, seed, sums[:, None], precision[None], tuple(s.id for s in sessions))


def student(config: Config, arm: str, seed: int, horizon: int, sessions: Sequence[Session]) -> Run:
    """A kept run of an arm at one horizon; raises ValueError when it was scored on other sessions."""
    path = config.students / arms.folder_name(arm) / str(seed) / "scores.npz"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; train the students with python -m distill.ablate --engines …")
    kept = arms.read(path, arm, seed)
    if kept.ids != tuple(s.id for s in sessions):
        raise ValueError(f"{path}: scored on other sessions than those of {config.dataset}; give the same dataset")
    return replace(kept, sums=kept.sums[:, [horizon]], precision=kept.precision[[horizon]])


def rows(config: Config, runs: Sequence[Run], sessions: Sequence[Session]) -> list[dict[str, Any]]:
    """The comparison as plain data; the first row's differences are 0."""
    of = recordings.of(config.dataset, sessions)
    made = [as_dict(row) for row in comparison.rows_of(runs, 0, config.resamples, of)]
    return [{k: v for k, v in row.items() if k != "by_horizon"} for row in made]


def table(made: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown; differences are to the first row."""
    first = made[0]["arm"]
    lines = [f"| | macro CCC | skill | AUPRC | CCC minus {first} |", "|---|---|---|---|---|"]
    for row in made:
        cells = [f"{row['value'][k]:.3f} [{row['interval'][k][0]:.3f}, {row['interval'][k][1]:.3f}]" for k in SCORES]
        gap, low, high = row["difference"]["macro CCC"]
        cells += [f"{row['average_precision']:.3f}", "" if row is made[0] else f"{gap:+.3f} [{low:+.3f}, {high:+.3f}]"]
        lines.append(f"| {' | '.join([row['arm'], *cells])} |")
    return lines


def in_full(config: Config, online: Path) -> Report:
    """The last arm's first student beside the first online baseline and every trivial row."""
    engine = config.students / arms.folder_name(config.arms[-1]) / str(config.student_seeds[0]) / "engine"
    return evaluate(
        EvaluateConfig(
            dataset=config.dataset, out=config.work / "evaluation", engine=None if config.predictions else engine,
            predictions=config.predictions, baseline=(online,), samples=10, horizon=config.horizon,
            resamples=config.resamples, threads=config.threads, workers=config.workers,
        )
    )  # fmt: skip


def macro(report: Report) -> dict[str, Any]:
    """What a reader compares of the full report."""
    content = report.to_json()
    return {
        "intensity": content["macro"],
        "activity": content["activity"]["macro"],
        "reactions": content["reactions"]["scores"],
        "differences": content["differences"],
    }


def main(argv: list[str] | None = None) -> int:
    """Train, compare, evaluate, print and write."""
    config = parse(Config, argv, prog="python -m benchmarks.transvae_row", description=(__doc__ or "").splitlines()[0])
    torch.set_num_threads(config.threads)
    wanted = [settings(config, "transvae-online", s) for s in config.seeds]
    wanted += [settings(config, "transvae-offline", s) for s in config.offline_seeds]
    folders = {(str(t.baseline), t.seed): trained(t) for t in wanted}
    sessions = processed.load(config.dataset, "val", au_names=SEED17.units)
    mean = known_mean([s.prob for s in processed.load(config.dataset, "train", au_names=SEED17.units)])

    def at(horizon: int, baselines: Sequence[str]) -> list[dict[str, Any]]:
        of_baselines = [
            scored(folder, NAMES[b], seed, horizon, sessions, mean)
            for (b, seed), folder in folders.items()
            if b in baselines
        ]
        beside = [student(config, arm, seed, horizon, sessions) for arm in config.arms for seed in config.student_seeds]
        return rows(config, [*of_baselines, *beside], sessions)

    live, at_once = at(config.horizon, ["transvae-online"]), at(0, list(NAMES))
    counts = [f"{len(config.seeds)} online", f"{len(config.offline_seeds)} offline"]
    seeds = f"seeds: {', '.join(counts)}, {len(config.student_seeds)} of each student"
    ahead_ms = round(1000 * config.horizon / FPS)
    lines = [f"{len(sessions)} held-out sessions, {seeds}; 95 % intervals over sessions. {ahead_ms} ms ahead:", ""]
    lines += [*table(live), "", "0 ms ahead, where the offline model stands, which has seen what comes:", ""]
    lines += table(at_once)
    print("\n".join(lines))
    if config.report is not None:
        comparison.put_between(config.report, "transvae", "\n".join(lines))
    result: dict[str, Any] = {"question": QUESTION, "sessions": len(sessions), "seeds": list(config.seeds)}
    result |= {"ahead": live, "at_once": at_once, "offline_seeds": list(config.offline_seeds)}
    result["training"] = {
        f"{NAMES[b]}, seed {seed}": {
            "steps": t.steps, "frames_seen": t.steps * t.batch * t.clip_frames, **progress.learned(folders[b, seed]),
            "look_ahead_frames": read_json(folders[b, seed] / "baseline.json")["look_ahead_frames"],
        }
        for t in wanted
        for b, seed in [(str(t.baseline), t.seed)]
    }  # fmt: skip
    if config.full:
        report = in_full(config, folders["transvae-online", config.seeds[0]])
        print(report.table())
        result["evaluation"] = macro(report)
    files = {k: getattr(config, k).name for k in ("preset", "results", "report") if getattr(config, k) is not None}
    where = as_dict(config) | files
    result["run"] = run_card(command="python -m benchmarks.transvae_row", config=where)
    write_json(config.results, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_main(main)
