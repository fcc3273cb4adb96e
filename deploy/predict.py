"""Run an engine over a dataset, as the loop would, and store what it says of every session.

python -m deploy.predict --engine out/engine --dataset out/dyads --split val --out out/predictions
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dyad.config import as_dict, parse, run_main


@dataclass(frozen=True, kw_only=True)
class Config:
    """Engine, dataset and where the predictions go."""

    engine: Path
    """Folder written by python -m deploy.build_engine."""
    dataset: Path
    """Folder that holds processed/."""
    out: Path
    """Prediction store."""
    split: str = "val"
    """Which sessions."""
    workers: int = 2
    """Processes."""


def predict_session(engine: Path, dataset: Path, session_id: str, out: Path) -> None:
    """Stream one decoded session through the engine, frame by frame, and store its predictions."""
    import numpy as np

    from deploy import engines
    from dyad.predictions import PredictionStore
    from student import front_cache
    from student.frontend import audio_window

    loaded = engines.load(engine)
    spec = loaded.manifest.spec
    front = front_cache.load(dataset, session_id, spec)
    state, steps = loaded.init_state(), []
    for t in range(len(front.frames)):
        inputs = {
            "frame_u8": np.asarray(front.frames[t]),
            "audio": audio_window(front.audio, t, spec),
            "present": front.present[t],
        }
        logits, state = loaded.step(inputs, state)
        steps.append(1 / (1 + np.exp(-logits)))
    whole = np.stack(steps).astype(np.float32)
    store = PredictionStore.open(out, au_names=spec.au_names)
    store.write(session_id, np.ascontiguousarray(whole[..., 0]), np.ascontiguousarray(whole[..., 1]))


def main(argv: list[str] | None = None) -> int:
    """Decode what is not decoded yet, then predict all sessions of the split."""
    config = parse(Config, argv, prog="python -m deploy.predict", description=(__doc__ or "").splitlines()[0])
    from deploy.manifest import Manifest
    from dyad.layouts import processed
    from dyad.predictions import PredictionStore
    from dyad.provenance import run_card
    from student import front_cache

    manifest = Manifest.read(config.engine)
    spec = manifest.spec
    sessions = processed.load(config.dataset, config.split, au_names=spec.au_names)
    failed = front_cache.ensure_all(config.dataset, sessions, spec, workers=config.workers)
    for session_id, reason in failed.items():
        print(f"left out {session_id}: {reason}")
    ready = [s.id for s in sessions if s.id not in failed]
    card = run_card(command="deploy.predict", config=as_dict(config), inputs={"engine": manifest.model_sha256})
    PredictionStore.create(
        config.out, au_names=spec.au_names, horizons=spec.horizons, source=manifest.model_sha256, run=card
    )
    many = len(ready)
    with ProcessPoolExecutor(max_workers=config.workers) as pool:
        list(pool.map(predict_session, [config.engine] * many, [config.dataset] * many, ready, [config.out] * many))
    print(f"{many} sessions predicted, {len(failed)} left out: {config.out}")
    return 3 if failed else 0


if __name__ == "__main__":
    run_main(main)
