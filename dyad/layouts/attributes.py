"""A person's facial attributes as the REACT challenge writes them: read by name, and put on the 30 Hz grid.

    <clip>.csv   a header and one row per frame (2023, 2024)      <clip>.npy   [T, 25], no names (2025, 2026)

Columns are found by the names in the header, in any order and the usual spellings (AU01, au1, Happiness); a header of
numbers (0 to 24, or 1 to 25) has the challenge's order, and one that is a row of values is refused. A column that is
not there is NaN. What the two rates have in common is time alone: see
`on_grid`. Shapes: T frames at the file's own rate, D = 25 attributes (`action_units.REACT_ATTRIBUTES`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import REACT15, REACT_ATTRIBUTES, positions
from dyad.clock import frames_in
from dyad.prepare import timing
from dyad.prepare.au_table import ACT_OFF_PROB, ACT_ON_PROB, hysteresis
from dyad.prepare.cells import Cells

Floats = NDArray[np.float32]
N_UNITS = len(REACT15.units)
_UNIT = re.compile(r"^au_?0*(\d+)(?:_(?:c|act|occ))?$", re.IGNORECASE)
_SPELLINGS = {
    "valence": (),
    "arousal": (),
    "neutral": ("neutrality",),
    "happy": ("happiness", "joy"),
    "sad": ("sadness",),
    "surprise": ("surprised",),
    "fear": ("fearful",),
    "disgust": ("disgusted",),
    "anger": ("angry",),
    "contempt": ("contemptuous",),
}
"""What else valence, arousal and the expressions are called; anything that is not here means none of them."""
_NAMED = {spelt: name for name, others in _SPELLINGS.items() for spelt in (name, *others)}


def read(path: Path) -> Floats:
    """The file's attributes [T, 25] in the challenge's order and units; NaN where it has no such column, or no face.

    Raises ValueError naming file, column and row of what is no attribute.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the download lost it, fetch it again or take the clip off the list")
    values = _from_array(path) if path.suffix == ".npy" else _from_table(path)
    lowest = np.where(np.isin(np.arange(25), (N_UNITS, N_UNITS + 1)), -1.0, 0.0)
    bad = np.argwhere(np.isinf(values) | (values < lowest - 1e-4) | (values > 1 + 1e-4))
    if len(bad):
        t, d = (int(v) for v in bad[0])
        raise ValueError(
            f"{path}: {REACT_ATTRIBUTES[d]} in row {t + 1} is {values[t, d]:g}, wanted {lowest[d]:g} to 1; "
            "are these the challenge's 25 attributes, in its order?"
        )
    return np.clip(values, lowest, 1).astype(np.float32)


def load_array(path: Path) -> NDArray[Any]:
    """The array of a file; raises ValueError naming a file that is lost or holds none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the download lost it, fetch it again or take the clip off the list")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable array ({error}); fetch it again") from None


def _from_array(path: Path) -> Floats:
    values = load_array(path)
    values = values.reshape(len(values), -1) if values.ndim else values
    if values.ndim != 2 or values.shape[1] != len(REACT_ATTRIBUTES) or not len(values):
        raise ValueError(f"{path}: has shape {values.shape}, wanted (frames, 25); is it a file of facial attributes?")
    return values.astype(np.float32)


def _from_table(path: Path) -> Floats:
    cells = Cells.read(path)
    columns = _columns(path, cells.names)
    values = np.full((len(cells.rows), len(REACT_ATTRIBUTES)), np.nan, np.float32)
    if not len(values):
        raise ValueError(f"{path}: has a header but no row; fetch it again")
    for d, place in columns.items():
        name = cells.names[place]
        values[:, d] = [_number(cells, name, r, text) for r, text in enumerate(cells.at(place), start=1)]
    return values


def _number(cells: Cells, name: str, row: int, text: str) -> float:
    return float("nan") if text.lower() in ("", "nan") else cells.number(name, row, text)


def _columns(path: Path, names: Sequence[str]) -> dict[int, int]:
    """Attribute → place of the file's column of it."""
    places = [p for p, name in enumerate(names) if name]
    if not any(attribute_of(names[p]) for p in places):
        _require_order(path, [names[p] for p in places])
        return dict(enumerate(places))
    found: dict[int, int] = {}
    for p in places:
        attribute = attribute_of(names[p])
        if attribute is None:
            known = ", ".join(REACT_ATTRIBUTES)
            raise ValueError(f"{path}: column {names[p]!r} is none of {known}; rename or remove it")
        d = REACT_ATTRIBUTES.index(attribute)
        if d in found:
            raise ValueError(f"{path}: columns {names[found[d]]!r} and {names[p]!r} both give {attribute}; remove one")
        found[d] = p
    return found


def _require_order(path: Path, names: Sequence[str]) -> None:
    """Raise ValueError unless columns without a known name are 25 that are numbered or called differently."""
    wanted = f"{', '.join(REACT_ATTRIBUTES[:3])}, …, {REACT_ATTRIBUTES[-1]}"
    counted = any(list(names) == [str(d + first) for d in range(len(names))] for first in (0, 1))
    if not counted and all(_is_number(name) for name in names):
        raise ValueError(
            f"{path}: has no header row, it begins with {', '.join(names[:3])}, …; write the names of its columns "
            f"above it ({wanted} where they are the challenge's 25 in its order)"
        )
    if len(names) != len(REACT_ATTRIBUTES) or len(set(names)) != len(names):
        raise ValueError(
            f"{path}: {len(names)} columns without a known name ({', '.join(names[:3])}, …), wanted the 25 attributes "
            f"{wanted}, each by a name of its own; name them in the header"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def attribute_of(name: str) -> str | None:
    """The attribute that a column's name means: "AU01_c" → "AU1", "Happiness" → "happy"; None when it means none."""
    unit = _UNIT.match(name.strip())
    known = f"AU{unit[1]}" if unit else _NAMED.get(name.strip().lower())
    return known if known in REACT_ATTRIBUTES else None


def on_grid(values: Floats, fps: float) -> tuple[Floats, Floats]:
    """Attributes [T, D] at `fps` on the 30 Hz grid, each frame twice: interpolated, and held.

    Row k is what was there at k/fps s. A value that may lie between two others is interpolated linearly at t/30 s; one
    that may not (active or not) is that of the latest row by the middle of the frame, (t + 0.5)/30 s, which is how
    pictures meet the grid. Nothing is shifted in time by either.
    """
    times_s = np.arange(len(values)) / fps
    wide = values.astype(np.float64)
    return timing.on_grid(times_s, wide, wide, frames_in(len(values) / fps), row_s=1 / fps)


def units(values: Floats, fps: float, au_names: Sequence[str]) -> tuple[Floats, Floats]:
    """Probability and activation [T, A] at 30 Hz of the units `au_names`; NaN where the challenge has no such unit.

    The challenge annotates occurrence, 0 or 1: both are then the held occurrence. Where a file has values between,
    they are probabilities, and a unit is active from 0.5 until it falls below 0.42.
    """
    unit_values = values[:, :N_UNITS]
    act = unit_values
    if not np.isin(unit_values[~np.isnan(unit_values)], (0, 1)).all():
        columns = [hysteresis(c, ACT_ON_PROB, ACT_OFF_PROB) for c in unit_values.T.astype(np.float64)]
        act = np.stack(columns, axis=1).astype(np.float32)
    held = on_grid(act, fps)[1]
    prob = held if act is unit_values else on_grid(unit_values, fps)[0]
    return by_name(prob, REACT15.units, au_names), by_name(held, REACT15.units, au_names)


def named(values: Floats, fps: float, names: Sequence[str]) -> Floats:
    """Attributes [T, len(names)] at 30 Hz by name: units held, valence, arousal and expressions interpolated."""
    unknown = [n for n in names if n not in REACT_ATTRIBUTES]
    if unknown:
        raise ValueError(f"no attribute {unknown[0]!r}; the challenge has {', '.join(REACT_ATTRIBUTES)}")
    mixed, held = on_grid(values, fps)
    mixed[:, :N_UNITS] = held[:, :N_UNITS]
    return by_name(mixed, REACT_ATTRIBUTES, names)


def by_name(values: Floats, source: Sequence[str], target: Sequence[str]) -> Floats:
    """Columns `target` of [T, len(source)], matched by name; NaN where `source` has none."""
    out = np.full((len(values), len(target)), np.nan, np.float32)
    s, t = positions(source, target)
    out[:, t] = values[:, s]
    return out
