"""What is to be scored, made to speak: a checkpoint in torch, an engine in its own process, or stored predictions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyad.predictions import PredictionStore
from dyad.provenance import read_json, sha256_file
from dyad.session import Session

if TYPE_CHECKING:
    from distill.evaluate import Config


def units(config: Config) -> tuple[str, ...]:
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


def predict(
    config: Config, au_names: tuple[str, ...], wanted: dict[str, list[Session]]
) -> tuple[dict[str, PredictionStore], dict[str, str]]:
    """Stores by split, and hashes of what made them. A given store may hold several splits."""
    if config.predictions is not None:
        store = PredictionStore.open(config.predictions, au_names=au_names)
        return dict.fromkeys(wanted, store), {"predictions": sha256_file(config.predictions / "store.json")}
    stores = config.out / "predictions"
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
    """Stream sessions through the student in torch; of the training split only those that the draws are fitted on."""
    import torch
    from tqdm import tqdm

    from distill import batches
    from distill.validate import predict as stream
    from dyad.provenance import run_card
    from student import checkpoint, front_cache

    assert config.checkpoint is not None
    torch.set_num_threads(config.threads)
    model = checkpoint.load(config.checkpoint)
    made_by = checkpoint.content_hash(config.checkpoint)
    for split, sessions in wanted.items():
        chosen = sessions[: config.fitting_sessions] if split == "train" != config.split else sessions
        failed = front_cache.ensure_all(config.dataset, chosen, model.spec, workers=config.workers)
        for session_id, reason in failed.items():
            print(f"left out {session_id}: {reason}")
        usable = [s for s in chosen if s.id not in failed]
        card = run_card(command="distill.evaluate", config={"checkpoint": str(config.checkpoint), "split": split})
        store = PredictionStore.create(
            stores / split, au_names=au_names, horizons=model.spec.horizons, source=made_by, run=card
        )
        for opened in tqdm(batches.open_sessions(config.dataset, usable, model.spec, None), desc=split, mininterval=2):
            store.write(opened.id, *stream(model, opened))
    return {"checkpoint": made_by}
