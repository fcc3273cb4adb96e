"""All that is needed to score: labels, predictions from whatever was given, the speaker's units, the training split.

Shapes: T frames, H horizons, A units.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dyad.layouts import processed
from dyad.predictions import Predictions, PredictionStore
from dyad.provenance import read_json, sha256_file
from dyad.session import Session

if TYPE_CHECKING:
    from distill.evaluate import Config

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One session with what was predicted of it; `speaker` [T, A] and `truth` where they are known."""

    session: Session
    predicted: Predictions
    speaker: Floats | None
    truth: Path | None

    def true(self, horizon: int) -> Floats:
        """Annotated probability [T - horizon, A] that the predictions of a horizon were meant for."""
        return self.session.prob[horizon : self.length]

    def active(self, horizon: int) -> Floats:
        """The same for activations."""
        return self.session.act[horizon : self.length]

    @property
    def length(self) -> int:
        """Frames that are both annotated and predicted."""
        return min(self.session.n_frames, len(self.predicted.prob))


@dataclass(frozen=True)
class Evidence:
    """Everything that scoring reads."""

    source: str
    au_names: tuple[str, ...]
    horizons: tuple[int, ...]
    cases: list[Case]
    tuning: list[Case]
    """Sessions on which thresholds are tuned; empty when they have to be tuned across the scored ones."""
    train: list[Session]
    train_speakers: list[Floats | None]
    inputs: dict[str, str]
    left_out: list[str] = field(default_factory=list)

    @property
    def mean(self) -> Floats:
        """Training mean of every unit's probability, [A]; NaN where it was never annotated."""
        return _mean(np.concatenate([s.prob for s in self.train]))

    @property
    def rate(self) -> Floats:
        """Share of training frames in which each unit is active, [A]."""
        return _mean(np.concatenate([s.act for s in self.train]))


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def gather(config: Config) -> Evidence:
    """Predict where needed and line everything up."""
    au_names = _units(config)
    scored = processed.load(config.dataset, config.split, au_names=au_names)
    train = scored if config.split == "train" else processed.load(config.dataset, "train", au_names=au_names)
    tuned_on = [] if config.split == "train" else train
    stores, inputs = _predict(config, au_names, scored, tuned_on)
    store = stores[config.split]
    if config.horizon not in store.horizons:
        raise ValueError(f"horizon {config.horizon} is not predicted; choose one of {list(store.horizons)}")
    held = set(store.ids())
    cases = [_case(config.dataset, s, store) for s in scored if s.id in held]
    if not cases:
        raise ValueError(f"none of the {len(scored)} sessions of {config.split!r} has predictions; predict them first")
    tuning = stores.get("train")
    ready = set(tuning.ids()) if tuning and tuned_on else set()
    return Evidence(
        source=str(config.checkpoint or config.engine or config.predictions),
        au_names=au_names,
        horizons=store.horizons,
        cases=cases,
        tuning=[_case(config.dataset, s, tuning) for s in tuned_on if tuning and s.id in ready],
        train=train,
        train_speakers=[speaker_units(config.dataset, s.id, au_names) for s in train],
        inputs=inputs,
        left_out=[s.id for s in scored if s.id not in held],
    )


def _case(root: Path, session: Session, store: PredictionStore) -> Case:
    truth = processed.root_of(root) / "truth" / f"{session.id}.npz"
    speaker = speaker_units(root, session.id, session.au_names)
    return Case(session, store.read(session.id), speaker, truth if truth.is_file() else None)


def speaker_units(root: Path, session_id: str, au_names: Sequence[str]) -> Floats | None:
    """The speaker's own units [T, A], NaN where unknown; None when nobody measured them."""
    from distill import batches

    return batches.speaker_units(root, session_id, au_names)


def _units(config: Config) -> tuple[str, ...]:
    """Units that the given artefact predicts."""
    if config.predictions is not None:
        return tuple(_required(config.predictions / "store.json", "python -m deploy.predict")["au_names"])
    if config.checkpoint is not None:
        return tuple(_required(config.checkpoint / "spec.json", "python -m distill.train")["au_names"])
    assert config.engine is not None
    return tuple(_required(config.engine / "manifest.json", "python -m deploy.build_engine")["spec"]["au_names"])


def _required(path: Path, maker: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; make it with {maker}")
    return read_json(path)


def _predict(
    config: Config, au_names: tuple[str, ...], scored: list[Session], train: list[Session]
) -> tuple[dict[str, PredictionStore], dict[str, str]]:
    """Stores by split, and hashes of what made them."""
    if config.predictions is not None:
        store = PredictionStore.open(config.predictions, au_names=au_names)
        return {config.split: store}, {"predictions": sha256_file(config.predictions / "store.json")}
    stores = config.out / "predictions"
    wanted = {config.split: scored} | ({"train": train} if train else {})
    for split in wanted:  # ours alone: OUT/predictions may be a store of somebody else's
        shutil.rmtree(stores / split, ignore_errors=True)
    if config.engine is not None:
        for split in wanted:
            _run_engine(config, split, stores / split)
        hashes = {"engine": sha256_file(config.engine / "manifest.json")}
    else:
        hashes = _run_checkpoint(config, au_names, wanted, stores)
    return {split: PredictionStore.open(stores / split, au_names=au_names) for split in wanted}, hashes


def _run_engine(config: Config, split: str, out: Path) -> None:
    """`python -m deploy.predict` in its own process: stages meet on disk."""
    command = [sys.executable, "-m", "deploy.predict", "--engine", str(config.engine), "--dataset", str(config.dataset)]
    command += ["--split", split, "--out", str(out), "--workers", str(config.workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):  # 3: some sessions were left out, the rest is whole
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise ValueError(f"{config.engine}: could not be run over {split!r}: {' '.join(last) or 'no message'}")
    print(done.stdout.strip())


def _run_checkpoint(
    config: Config, au_names: tuple[str, ...], wanted: dict[str, list[Session]], stores: Path
) -> dict[str, str]:
    """Stream sessions through the student in torch; of the training split only those that tune thresholds."""
    import torch
    from tqdm import tqdm

    from distill import batches
    from distill.validate import predict
    from dyad.provenance import run_card
    from student import checkpoint, front_cache

    assert config.checkpoint is not None
    torch.set_num_threads(config.threads)
    model = checkpoint.load(config.checkpoint)
    made_by = checkpoint.content_hash(config.checkpoint)
    for split, sessions in wanted.items():
        chosen = sessions if split == config.split else sessions[: config.threshold_sessions]
        failed = front_cache.ensure_all(config.dataset, chosen, model.spec, workers=config.workers)
        for session_id, reason in failed.items():
            print(f"left out {session_id}: {reason}")
        usable = [s for s in chosen if s.id not in failed]
        card = run_card(command="distill.evaluate", config={"checkpoint": str(config.checkpoint), "split": split})
        store = PredictionStore.create(
            stores / split, au_names=au_names, horizons=model.spec.horizons, source=made_by, run=card
        )
        for opened in tqdm(batches.open_sessions(config.dataset, usable, model.spec, None), desc=split, mininterval=2):
            store.write(opened.id, *predict(model, opened))
    return {"checkpoint": made_by}
