"""Train every arm of an ablation over every seed, from eyes that the arms of a seed share, and sum up its errors.

    OUT/eyes/<seed>/checkpoint          eyes of a seed
    OUT/<arm>/<seed>/                   the run, its checkpoint and, with engines, engine and predictions
    OUT/<arm>/<seed>/scores.npz         sums [S, H, A, 8] of every held-out session, for `dyad.metrics.agreement`

Shapes: S held-out sessions, T frames, H horizons, A units.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.batches import TrainingSession
from distill.eyes import look
from distill.train import Config as TrainConfig
from distill.trainer import Trainer
from distill.validate import ahead, predict
from dyad import config as configuration
from dyad.metrics import agreement
from dyad.metrics.classification import average_precision
from dyad.predictions import PredictionStore
from dyad.provenance import atomic_path
from dyad.soft_labels import SoftLabelStore
from student import checkpoint
from student.spec import StudentSpec

if TYPE_CHECKING:
    from distill.ablate import Arms, Config

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Run:
    """One arm with one seed: per-session sums [S, H, A, 8] and average precision [H, A] of the activations."""

    arm: str
    seed: int
    sums: NDArray[np.float64]
    precision: NDArray[np.float64]
    ids: tuple[str, ...]
    """The held-out sessions, in the order of `sums`."""


def folder_name(arm: str) -> str:
    """An arm's name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", arm.lower()).strip("-")


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = _merge(merged[key], value) if isinstance(value, Mapping) and key in merged else value
    return merged


def settings(config: Config, arms: Arms, arm: str, seed: int) -> TrainConfig:
    """The training configuration of one run; raises ValueError for settings that `distill.train` does not know."""
    changes = dict(arms.arms[arm])
    base = _merge(configuration.read_yaml(arms.base), arms.shared)
    shared: dict[str, Any] = {
        "dataset": str(config.dataset),
        "out": str(config.out / folder_name(arm) / str(seed)),
        "eyes": str(config.out / "eyes" / str(seed) / "checkpoint"),
        "freeze_eyes": True,
        "seed": seed,
        "threads": config.threads,
        "workers": config.workers,
    }
    if config.labels is not None:
        shared["labels"] = str(config.labels)
    if changes.pop("extra", False):
        if config.extra is None or config.extra_labels is None:
            raise ValueError(f"arm {arm!r} wants extra speakers: give --extra and --extra-labels")
        shared |= {"extra": str(config.extra), "extra_labels": str(config.extra_labels)}
    if not config.engines:
        shared["qat_steps"] = 0
    return configuration.from_dict(TrainConfig, _merge(base | shared, changes), where=f"arm {arm!r}")


def train_all(config: Config, arms: Arms) -> list[Run]:
    """All runs, trained where they are not there yet; every arm's settings are checked before the first one trains."""
    wanted = {(arm, seed): settings(config, arms, arm, seed) for seed in config.seeds for arm in arms.arms}
    for (arm, _), train in wanted.items():
        _refuse(config, arms, arm, train)
    runs = []
    for (arm, seed), train in wanted.items():
        kept = train.out / "scores.npz"
        if not kept.is_file():
            print(f"--- {arm}, seed {seed}", flush=True)
            _open_eyes(train)
            keep(kept, *_train(config, train))
        runs.append(read(kept, arm, seed))
    if len({run.ids for run in runs}) > 1:
        raise ValueError(f"{config.out}: runs were scored on differing sessions; remove them or give another --out")
    return runs


def keep(path: Path, sums: NDArray[np.float64], precision: NDArray[np.float64], ids: Sequence[str]) -> None:
    """Write the scores of a run, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, sums=sums, precision=precision, ids=np.array(ids))


def read(path: Path, arm: str, seed: int) -> Run:
    """The scores of a run that was kept."""
    with np.load(path) as content:
        return Run(arm, seed, content["sums"], content["precision"], tuple(str(i) for i in content["ids"]))


def _refuse(config: Config, arms: Arms, arm: str, train: TrainConfig) -> None:
    """Raise ValueError for an arm that cannot be told from another, scored, or whose kept run was another one."""
    taken = ["eyes", *(folder_name(a) for a in arms.arms if a != arm)]
    if not folder_name(arm) or folder_name(arm) in taken:
        raise ValueError(f"arm {arm!r}: its folder {folder_name(arm)!r} is empty or taken; give it another name")
    horizons = spec_of(train).horizons
    if horizons[config.horizon : config.horizon + 1] != (config.horizon,):
        raise ValueError(f"arm {arm!r}: its student predicts {horizons} frames ahead; wanted 0, 1, … {config.horizon}")
    if (train.out / "scores.npz").is_file():
        kept = configuration.as_dict(configuration.load(TrainConfig, train.out / "config.yaml"))
        aside = ("out", "eyes", "threads", "workers")
        if odd := [k for k, v in configuration.as_dict(train).items() if k not in aside and kept[k] != v]:
            raise ValueError(f"{train.out}: was trained with another {', '.join(odd)}; remove it or give another --out")
    if train.eyes is not None and (train.eyes.parent / "config.yaml").is_file():
        kept = configuration.as_dict(configuration.load(TrainConfig, train.eyes.parent / "config.yaml"))
        wanted = configuration.as_dict(train)
        if odd := [k for k in ("dataset", "eyes_steps", "augment", "seed") if kept[k] != wanted[k]]:
            raise ValueError(f"{train.eyes}: eyes of another {', '.join(odd)}; remove them or give another --out")
    for folder in (train.labels, train.extra_labels):
        if folder is not None:
            SoftLabelStore.open(folder, au_names=spec_of(train).au_names)


def spec_of(train: TrainConfig) -> StudentSpec:
    """The student that a run trains."""
    return configuration.load(StudentSpec, train.student)


def _open_eyes(train: TrainConfig) -> None:
    """Eyes of a seed, once for all arms of it; an arm with another backbone or width needs another OUT."""
    assert train.eyes is not None
    if train.eyes.is_dir():
        return
    alone = dataclasses.replace(
        train,
        out=train.eyes.parent,
        eyes=None,
        labels=None,
        extra=None,
        extra_labels=None,
        freeze_eyes=False,
        qat_steps=0,
    )
    trainer = Trainer(alone, spec_of(train))
    trainer.ship()  # before the first step on clips: eyes and nothing else


def _train(config: Config, train: TrainConfig) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    spec = spec_of(train)
    trainer = Trainer(train, spec)
    trainer.run()
    trainer.ship()
    model = checkpoint.load(train.out / "checkpoint")
    store = _through_the_engine(config, train, spec) if config.engines else None

    def said(session: TrainingSession) -> tuple[Floats, Floats]:
        if store is not None:
            stored = store.read(session.id)
            return stored.prob, stored.act_prob
        return predict(model, session, seen=look(model, session, trainer.data.kept_in(session)))

    return score(trainer, said)


def score(
    trainer: Trainer, said: Callable[[TrainingSession], tuple[Floats, Floats]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Sums [S, H, A, 8] and average precision [H, A] of what is `said` (probability, activation), and the sessions."""
    sums, curves, horizons = [], [], trainer.spec.horizons
    for session in trainer.data.val:
        prob, act = said(session)
        sums.append([_sums(prob, session.prob, i, h, trainer.data.mean) for i, h in enumerate(horizons)])
        curves.append((act, session.act))
    precision = np.array([_precision(curves, i, h) for i, h in enumerate(horizons)])
    return np.array(sums), precision, [session.id for session in trainer.data.val]


def _sums(prob: Floats, true: Floats, column: int, horizon: int, mean: Floats) -> NDArray[np.float64]:
    guess, true = ahead(prob, true, column, horizon)
    return agreement.sums(guess, true, mean)


def _precision(curves: list[tuple[Floats, Floats]], column: int, horizon: int) -> NDArray[np.float64]:
    pairs = [ahead(act, true, column, horizon) for act, true in curves]
    said, true = (np.concatenate(x) for x in zip(*pairs, strict=True))
    return np.array([average_precision(said[:, a], true[:, a]) for a in range(true.shape[1])])


def _through_the_engine(config: Config, train: TrainConfig, spec: StudentSpec) -> PredictionStore:
    """Build the INT8 engine and stream the held-out sessions through it, in processes of their own."""
    engine, said = train.out / "engine", train.out / "predictions"
    for command in (
        ["deploy.build_engine", "--checkpoint", train.out / "checkpoint", "--out", engine, "--target", "onnxruntime"],
        ["deploy.predict", "--engine", engine, "--dataset", train.dataset, "--out", said, "--workers", config.workers],
    ):
        done = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ValueError(f"{command[0]}: {' '.join(last) or 'no message'}")
    return PredictionStore.open(said, au_names=spec.au_names)
