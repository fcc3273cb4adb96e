"""Action-unit vocabularies by name, and the maps between them.

Columns are never matched by position: two sets meet through the names of their units.
Sources: Ekman & Friesen's FACS for the meanings; the system's requirements for the 17; REACT 2024 for the 15.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

FACS_MEANING: dict[str, str] = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU5": "upper lid raiser",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU9": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU12": "lip corner puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU17": "chin raiser",
    "AU18": "lip pucker",
    "AU20": "lip stretcher",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
}
"""FACS name of every unit that any of our sets holds."""


@dataclass(frozen=True)
class AUSet:
    """An ordered, named set of action units; `units` are written "AU1", without a leading zero."""

    name: str
    units: tuple[str, ...]

    def index(self, unit: str) -> int:
        """Column of `unit`; raises ValueError that names the nearest unit of the set."""
        if unit in self.units:
            return self.units.index(unit)
        near = difflib.get_close_matches(unit, self.units, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"action-unit set {self.name} has no {unit}; {hint}it holds {', '.join(self.units)}")


SEED17 = AUSet(
    "SEED17",
    tuple(f"AU{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 18, 20, 23, 25, 26)),
)
"""The 17 units that the product predicts."""

REACT15 = AUSet(
    "REACT15",
    tuple(f"AU{n}" for n in (1, 2, 4, 6, 7, 9, 10, 12, 14, 15, 17, 23, 24, 25, 26)),
)
"""The 15 units of the REACT challenge; 14 of them are shared with SEED17."""

REACT_ATTRIBUTES = (
    *REACT15.units,
    *("valence", "arousal"),
    *("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"),
)
"""The 25 attributes of the REACT challenge, in its order: units 0 or 1, valence and arousal -1 to 1, probabilities."""

RARE = ("AU5", "AU9", "AU10", "AU18", "AU20")
"""Units that listeners seldom show; scores report them apart."""

_SETS = {s.name: s for s in (SEED17, REACT15)}


def by_name(name: str) -> AUSet:
    """The set called `name`; raises ValueError that lists the known ones."""
    if name not in _SETS:
        raise ValueError(f"unknown action-unit set {name!r}; known: {', '.join(_SETS)}")
    return _SETS[name]


def positions(source: Sequence[str], target: Sequence[str]) -> tuple[list[int], list[int]]:
    """Columns of the shared units: `target[:, dst] = source[:, src]`, matched by name, in target order."""
    shared = [(source.index(unit), t) for t, unit in enumerate(target) if unit in source]
    return [s for s, _ in shared], [t for _, t in shared]


def _both(stem: str, weight: float) -> tuple[tuple[str, float], ...]:
    return ((f"{stem}Left", weight), (f"{stem}Right", weight))


ARKIT: dict[str, tuple[tuple[str, float], ...]] = {
    "AU1": (("browInnerUp", 1.0),),
    "AU2": _both("browOuterUp", 1.0),
    "AU4": _both("browDown", 1.0),
    "AU5": _both("eyeWide", 1.0),
    "AU6": _both("cheekSquint", 1.0),
    "AU7": _both("eyeSquint", 1.0),
    "AU9": _both("noseSneer", 1.0),
    "AU10": _both("mouthUpperUp", 1.0),
    "AU12": _both("mouthSmile", 1.0),
    "AU14": _both("mouthDimple", 1.0),
    "AU15": _both("mouthFrown", 1.0),
    "AU17": (("mouthShrugLower", 1.0),),
    "AU18": (("mouthPucker", 1.0),),
    "AU20": _both("mouthStretch", 1.0),
    "AU23": (("mouthRollLower", 0.5), ("mouthRollUpper", 0.5), *_both("mouthPress", 0.5)),
    "AU24": _both("mouthPress", 1.0),
    "AU25": (("jawOpen", 0.25), *_both("mouthLowerDown", 0.25)),
    "AU26": (("jawOpen", 0.6),),
}
"""ARKit blendshapes (name, gain) of each unit. Shapes fed by several units (the jaw) take the maximum, not the sum."""


def to_arkit(au: dict[str, float]) -> dict[str, float]:
    """ARKit blendshape values in [0, 1] of action-unit intensities in [0, 1]; shared shapes take the maximum."""
    shapes: dict[str, float] = {}
    for unit, value in au.items():
        for shape, gain in ARKIT.get(unit, ()):
            shapes[shape] = max(shapes.get(shape, 0.0), min(1.0, gain * value))
    return shapes
