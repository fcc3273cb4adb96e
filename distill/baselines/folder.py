"""A trained baseline on disk: weights, and a card that says who it is and what it may know.

model.safetensors   weights, and the two constants that standardise cepstra
baseline.json       name, timing, parameters, attributes, settings and run card
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from distill.baselines.settings import Timing, TransVaeSettings, timing
from distill.baselines.transvae import TransVae
from dyad.action_units import SEED17, positions
from dyad.config import as_dict, from_dict
from dyad.provenance import atomic_path, read_json, sha256_file, write_json

WEIGHTS, CARD = "model.safetensors", "baseline.json"
UNITS = SEED17.units
"""Units that are stored, in this order, as a student stores them."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model in evaluation mode with all that its answers depend on."""

    model: TransVae
    baseline: str
    settings: TransVaeSettings
    clip_frames: int
    session_frames: int
    """Of the longest session that it was trained on, or answers."""
    learned: NDArray[np.bool_]
    """[A] which attributes the training sessions were annotated for; the others mean nothing."""
    training_mean: NDArray[np.float32]
    """[A], 0 where nothing is known."""
    run: Mapping[str, Any]
    source: str = ""
    """Hash of the weights."""

    @property
    def names(self) -> tuple[str, ...]:
        """Attributes of the model's columns."""
        return self.settings.names

    @property
    def timing(self) -> Timing:
        """What an answer may know."""
        return timing(self.baseline, self.settings, self.clip_frames, self.session_frames)

    @property
    def over_session(self) -> bool:
        """Whether its eyes take their statistics over whole sessions: an answer then knows all of one."""
        return not self.model.online and self.settings.normalise == "session"

    @property
    def columns(self) -> tuple[list[int], list[int]]:
        """The model's columns of the product's units that were learned, and the units' own columns."""
        pairs = [(s, t) for s, t in zip(*positions(self.names, UNITS), strict=True) if self.learned[s]]
        return [s for s, _ in pairs], [t for _, t in pairs]

    @property
    def card(self) -> dict[str, Any]:
        """Plain data for baseline.json."""
        when = self.timing
        return {
            "name": f"Trans-VAE {'online' if self.model.online else 'offline'}",
            "baseline": self.baseline,
            "algorithmic_latency_frames": when.block_frames,
            "look_ahead_frames": when.look_ahead_frames,
            "ahead_frames": when.ahead_frames,
            "horizons": list(when.horizons),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "attributes": list(self.names),
            "learned": [n for n, known in zip(self.names, self.learned, strict=True) if known],
            "training_mean": [float(v) for v in self.training_mean],
            "clip_frames": self.clip_frames,
            "session_frames": self.session_frames,
            "settings": as_dict(self.settings),
            "source": self.source,
            "run": dict(self.run),
        }


def build(baseline: str, settings: TransVaeSettings) -> TransVae:
    """The untrained model of these settings."""
    online = baseline == "transvae-online"
    return TransVae(online=online, attributes=len(settings.names), window_frames=settings.window_frames)


def save(folder: Path, trained: Trained) -> Trained:
    """Write weights and card; returns what `load` would give."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in trained.model.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as part:
        save_file(tensors, str(part))
    write_json(folder / CARD, trained.card | {"source": sha256_file(folder / WEIGHTS)})
    return load(folder)


def load(folder: Path) -> Trained:
    """The model of a folder; raises ValueError naming what is missing or does not fit."""
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder}: no {CARD} there; train one with python -m distill.train --baseline …")
    card = read_json(folder / CARD)
    settings = from_dict(TransVaeSettings, card["settings"], where=str(folder / CARD))
    model = build(card["baseline"], settings)
    try:
        model.load_state_dict(load_file(str(folder / WEIGHTS)))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS}: damaged or missing ({error}); train or copy it again") from None
    return Trained(
        model=model.eval(),
        baseline=card["baseline"],
        settings=settings,
        clip_frames=int(card["clip_frames"]),
        session_frames=int(card.get("session_frames", 0)),
        learned=np.array([n in card["learned"] for n in settings.names]),
        training_mean=np.array(card["training_mean"], np.float32),
        run=card["run"],
        source=sha256_file(folder / WEIGHTS),
    )


def take_eyes(model: TransVae, source: Path, settings: TransVaeSettings) -> None:
    """Give the model another baseline's video encoder, in place."""
    other = load(source)
    if other.settings.crop_px != settings.crop_px:
        raise ValueError(
            f"{source}: its eyes see crops of {other.settings.crop_px} px, wanted {settings.crop_px}; "
            "give the same crop_px, or leave --eyes out"
        )
    model.video.load_state_dict(other.model.video.state_dict())
