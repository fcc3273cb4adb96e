"""How far a baseline has come, on held-out sessions: shown while it trains, never chosen by.

skill, ccc   of the answer at the distribution's mean, at the frame that each answer is for; macro over learned units
varies       variance of that answer over time: near 0 it is a mean
draws        mean squared difference of two draws, REACT's FRDiv: near 0 nothing is made of the sample

Shapes: A attributes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from distill.baselines import predict
from distill.baselines.clips import later
from distill.baselines.folder import Trained
from distill.baselines.inputs import Material
from dyad.config import read_yaml
from dyad.metrics import agreement

KEPT = ("step", "skill", "ccc", "varies", "draws")
FLAT = 0.01
"""CCC gained over a quarter of the steps below which a curve is called flat."""


def scores(trained: Trained, materials: Sequence[Material], seen: Sequence[Tensor | None]) -> dict[str, float]:
    """Over the learned units, held in [0, 1]; `seen` as `looks.of_pieces` gives it."""
    columns, _ = trained.columns
    totals: list[NDArray[np.float64]] = []
    moves: list[tuple[float, float]] = []
    for material, features in zip(materials, seen, strict=True):
        said = np.clip(predict.answers(trained, material, [None, 0, 1], features)[..., columns], 0, 1)
        true = later(material.attributes, trained.settings.ahead_frames, len(said[0]))[:, columns]
        totals.append(agreement.sums(said[0], true, trained.training_mean[columns]))
        moves.append((float(said[0].var(axis=0).mean()), float(np.square(said[1] - said[2]).mean())))
    found = agreement.scores(np.sum(totals, axis=0))
    varies, draws = np.mean(moves, axis=0)
    return {
        "skill": float(found.total_skill),
        "ccc": agreement.macro(found.ccc)[0],
        "varies": float(varies),
        "draws": float(draws),
    }


def learned(folder: Path) -> dict[str, Any]:
    """The `course` of a run, with the KL of each of the sample's numbers in nats, and whether it was flat at its end.

    The rate falls to almost nothing towards the end: a flat end says that these steps have given what they can, not
    that more of them could give no more.
    """
    weight = read_yaml(folder / "config.yaml")["transvae"]["kl"] or 1.0
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines())
    course = [{k: x[k] for k in KEPT} | {"kl": round(x["kl"] / weight, 4)} for x in lines if "skill" in x]
    return {"course": course, **flatness(course)}


def flatness(course: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The CCC gained over the last quarter of the steps at least, and whether that is next to nothing."""
    late = next((p for p in reversed(course) if p["step"] <= 0.75 * course[-1]["step"]), course[0])
    gain = course[-1]["ccc"] - late["ccc"]
    return {"ccc_gained_in_the_last_quarter": round(gain, 4), "flat": abs(gain) < FLAT}
