"""Let a trained baseline answer whole sessions: what `distill.evaluate` scores, and sampled answers for REACT's scores.

    python -m distill.baselines.predict --run out/transvae --dataset out/dyads --split val --out out/transvae-val

    python -m distill.evaluate --engine out/engine --dataset out/dyads --out out/evaluation --baseline out/transvae-val

OUT/predictions       the answer at the distribution's mean; with a test split of the validation sessions, too, on
                      which thresholds are tuned
OUT/samples/<id>.npz  `samples` [K, T, U], row t shown at frame t, drawn by seed and session; `names` of the columns;
                      where more than units was learned also `attributes` [K, T, D] and `attribute_names`
OUT/baseline.json     who answered, and how much of the future an answer may have used

Value of row t, column h: what the model said for frame t + h, and had said by frame t (by t + look_ahead_frames where
that is not 0). Before anything was said it is the training mean. Units are the product's, held in [0, 1]; the model has
one number for probability and activation, and a unit that nobody annotated is 0.
Shapes: T frames, H horizons, A attributes of the model, D of them learned, U units, K samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dyad.config import parse, run_main

if TYPE_CHECKING:
    from torch import Tensor

    from distill.baselines.folder import Trained
    from distill.baselines.inputs import Material

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A trained baseline, and the sessions that it answers."""

    run: Path
    """Folder of python -m distill.train --baseline."""
    dataset: Path
    """Folder that holds processed/<split>."""
    out: Path
    """Folder of the answers."""
    split: str = "val"
    """Sessions to answer."""
    samples: int | None = None
    """Sampled answers per session; else as many as it was trained to give."""
    seed: int = 0
    """Of the samples."""
    threads: int = 2
    """Processor threads of torch."""
    workers: int = 2
    """Processes that decode sessions."""

    def __post_init__(self) -> None:
        """Refuse what cannot be answered."""
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"samples ≥ 1 are needed, got {self.samples}")


def pieces(trained: "Trained", frames: int) -> list[slice]:
    """What is handed in at once: online everything; offline clips of the length it learned, the last one at the end."""
    block = trained.clip_frames
    if trained.model.online or frames <= block:
        return [slice(0, frames)]
    return [slice(start, start + block) for start in [*range(0, frames - block, block), frames - block]]


def looked_at(trained: "Trained", frames: int) -> list[slice]:
    """The clips that `eyes.look` normalises by themselves; none where a frame knows its past, or the whole session."""
    return [] if trained.model.online or trained.over_session else pieces(trained, frames)


def answers(
    trained: "Trained", material: "Material", seeds: Sequence[int | None], seen: "Tensor | None" = None
) -> Floats:
    """Attributes [len(seeds), T, A]: a draw per seed, the distribution's mean for None.

    A draw depends on its seed alone, whatever else is asked for beside it. `seen`: what `eyes.look` made of the frames
    and of the clips `looked_at`.
    """
    import torch

    from distill.baselines import eyes, rollout

    model, n = trained.model, material.n_frames
    device = model.tokens.device
    generators = [None if s is None else torch.Generator().manual_seed(s) for s in seeds]
    said = np.zeros((len(seeds), n, model.n_attributes), np.float32)
    if seen is None and trained.over_session:
        seen = eyes.look(model, material.frames[:n])
    with torch.no_grad():
        for i, part in enumerate(pieces(trained, n)):
            heard = torch.from_numpy(np.array(material.cepstra[part]))[None].to(device)
            if seen is None:
                shown = torch.from_numpy(np.array(material.frames[part]))[None].to(device)
            else:
                shown = (seen[part] if seen.ndim == 2 else seen[i])[None].to(device)
            looks = rollout.behaviours(model, shown, heard, trained.settings)
            drawn = [
                torch.zeros(len(looks), 1, rollout.WIDTH) if g is None else rollout.draw(len(looks), 1, g)
                for g in generators
            ]
            given = rollout.respond(model, looks, heard.shape[1], torch.cat(drawn, dim=1).to(device))
            said[:, part] = given.attributes.cpu().numpy()
    return said


def at_horizons(said: Floats, ahead: int, horizons: Sequence[int], before: Floats) -> Floats:
    """Answers [T, A], row u meant for frame u + ahead → [T, H, A], row t and column h meant for frame t + h."""
    rows = np.arange(len(said))[:, None] + np.array(horizons)[None, :] - ahead
    return np.where(rows[..., None] < 0, before, said[np.maximum(rows, 0)]).astype(np.float32)


def shown(trained: "Trained", said: Floats, horizons: Sequence[int]) -> Floats:
    """Answers [T, A] → the product's units [T, H, U], as a face shows them."""
    from distill.baselines.folder import UNITS

    source, target = trained.columns
    prob = np.zeros((len(said), len(horizons), len(UNITS)), np.float32)
    ahead, before = trained.timing.ahead_frames, trained.training_mean
    prob[..., target] = np.clip(at_horizons(said, ahead, horizons, before)[..., source], 0, 1)
    return prob


def write(
    trained: "Trained",
    materials: Sequence["Material"],
    tuning: Sequence["Material"],
    out: Path,
    *,
    samples: int,
    seed: int,
) -> None:
    """Write OUT/predictions, OUT/samples and OUT/baseline.json; of `tuning`, sessions of another split, no samples."""
    from tqdm import tqdm

    from distill.baselines.folder import UNITS
    from dyad.predictions import PredictionStore
    from dyad.provenance import atomic_path, write_json

    trained = replace(trained, session_frames=max(m.n_frames for m in [*materials, *tuning]))
    horizons, aside = trained.timing.horizons, {m.id for m in tuning}
    store = PredictionStore.create(
        out / "predictions", au_names=UNITS, horizons=horizons, source=trained.source, run=trained.run
    )
    for material in tqdm([*materials, *tuning], desc="answers", mininterval=2):
        drawn = [] if material.id in aside else [_seed(seed, material.id, k) for k in range(samples)]
        said = answers(trained, material, [None, *drawn])
        prob = shown(trained, said[0], horizons)
        store.write(material.id, prob, prob)
        if drawn:
            with atomic_path(out / "samples" / f"{material.id}.npz") as part, part.open("wb") as file:
                np.savez(file, **_samples(trained, said[1:]))
    write_json(out / "baseline.json", trained.card | {"samples": samples, "sampling_seed": seed})


def _samples(trained: "Trained", said: Floats) -> dict[str, Any]:
    """Arrays of a session's file of samples, of answers [K, T, A]."""
    from distill.baselines.folder import UNITS

    arrays = {"samples": np.stack([shown(trained, one, (0,))[:, 0] for one in said]), "names": np.array(UNITS)}
    learned = np.flatnonzero(trained.learned)
    names = np.array(trained.names)[learned]
    if set(names) <= set(UNITS):
        return arrays
    ahead, before = trained.timing.ahead_frames, trained.training_mean
    whole = np.stack([at_horizons(one, ahead, (0,), before)[:, 0] for one in said])
    return arrays | {"attributes": whole[..., learned], "attribute_names": names}


def _seed(seed: int, session_id: str, k: int) -> int:
    """A draw's own seed: neither the order of sessions nor the number of samples changes it."""
    from dyad.provenance import sha256_bytes

    return int(sha256_bytes(f"{seed}/{session_id}/{k}".encode())[:15], 16)


def main(argv: list[str] | None = None) -> int:
    """Parse and refuse before torch is imported; then answer."""
    description = (__doc__ or "").splitlines()[0]
    config = parse(Config, argv, prog="python -m distill.baselines.predict", description=description)
    import torch

    from distill.baselines import folder, inputs

    torch.set_num_threads(config.threads)
    trained = folder.load(config.run)
    materials = inputs.open_split(config.dataset, config.split, trained.settings, workers=config.workers)
    tuning: list[inputs.Material] = []
    if config.split not in ("train", "val"):
        tuning = inputs.open_split(config.dataset, "val", trained.settings, workers=config.workers)
    samples = trained.settings.samples if config.samples is None else config.samples
    write(trained, materials, tuning, config.out, samples=samples, seed=config.seed)
    print(f"{len(materials)} sessions answered: {config.out / 'predictions'}, {samples} samples each beside it")
    return 0


if __name__ == "__main__":
    run_main(main)
