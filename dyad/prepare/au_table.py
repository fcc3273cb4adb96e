"""Tables of action units as the common tools write them, read by the names of their columns.

    OpenFace   AU01_r  intensity 0–5 → probability r/5;   AU01_c  0/1 → activation (without it: hysteresis on r)
    py-feat    AU01    probability 0–1; activation by hysteresis
    rapport    AU1_prob, AU1_act (also prob_AU1, au_prob_AU1, listener_au_prob.AU1); one row per 30 Hz frame

A unit that the tool does not know is masked (NaN), never zero. Rows in which the tool says that it lost the face are
masked. Anything else that is not a number in its range is refused with file, column and row.
Shapes: N rows, U units. Sources: the output formats documented by OpenFace 2 and py-feat; the system's requirements.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.prepare.cells import Cells
from dyad.prepare.timing import TIME_COLUMNS, row_times

Floats = NDArray[np.float64]

FACS_NUMBERS = frozenset((1, 2, *range(4, 40), *range(41, 47)))
"""Numbers that mean something in FACS; others are mistakes."""
MIN_CONFIDENCE = 0.5
"""Rows whose detector is less sure of the face are masked."""
ACT_ON_INTENSITY, ACT_OFF_INTENSITY = 1.0, 0.8
ACT_ON_PROB, ACT_OFF_PROB = 0.5, 0.42

_AU_COLUMN = re.compile(
    r"^(?:listener_)?(?:au_)?(?:(?P<before>prob|act)[_.])?au_?0*(?P<number>\d+)(?:_(?P<after>\w+))?$", re.IGNORECASE
)
_MEANING = {"r": "intensity", "c": "act", "prob": "prob", "act": "act", None: "prob"}
_SEVERAL = {"clip": "clips", "input": "clips", "video": "clips", "face_id": "faces", "face": "faces"}


@dataclass(frozen=True)
class AUTable:
    """One listener's units, as annotated. `prob` and `act` [N, U] are NaN where masked; `times_s` [N] increases."""

    path: Path
    dialect: str
    units: tuple[str, ...]
    times_s: Floats
    row_s: float
    frame_rate_hz: float
    """Frames per second of the video that the table was made from, as far as the table tells."""
    prob: Floats
    act: Floats
    masked_rows: int
    unused: tuple[str, ...]
    """Units of the file that the wanted set does not hold."""

    @property
    def end_s(self) -> float:
        """Where the last row ends."""
        return float(self.times_s[-1]) + self.row_s


@dataclass(frozen=True)
class _Column:
    unit: str
    meaning: str
    suffix: str | None
    name: str


def holds_units(path: Path) -> bool:
    """Whether the table's header has a column of an action unit."""
    return any(_AU_COLUMN.match(name) for name in Cells.read(path).names)


def read_table(path: Path, wanted: Sequence[str], *, video_fps: float | None = None) -> AUTable:
    """Read a table's `wanted` units; `video_fps` times the rows of a table that has frame numbers but no times.

    Raises ValueError naming file, column, row and remedy.
    """
    cells = Cells.read(path)
    columns = _au_columns(path, cells.names)
    dialect = _dialect(path, columns)
    if not cells.rows:
        raise ValueError(f"{path}: has a header but no row; extract the action units again")
    _refuse_several(cells)
    lost, n_rows = _lost_rows(cells), len(cells.rows)
    clock = cells.numbers(TIME_COLUMNS)
    times_s, row_s, rate_hz = row_times(path, clock, n_rows, dialect=dialect, video_fps=video_fps)
    units = tuple(u for u in wanted if any(c.unit == u for c in columns))
    if not units:
        raise ValueError(f"{path}: holds none of the wanted units ({', '.join(wanted)}); extract them from the video")
    prob, act = np.full((2, n_rows, len(units)), np.nan)
    for u, unit in enumerate(units):
        found = {c.meaning: _values(cells, c, lost) for c in columns if c.unit == unit}
        prob[:, u], act[:, u] = _prob_and_act(found, n_rows)
    return AUTable(
        path=path,
        dialect=dialect,
        units=units,
        times_s=times_s,
        row_s=row_s,
        frame_rate_hz=rate_hz,
        prob=prob,
        act=act,
        masked_rows=int(lost.sum()),
        unused=tuple(dict.fromkeys(c.unit for c in columns if c.unit not in wanted)),
    )


def _au_columns(path: Path, names: list[str]) -> list[_Column]:
    columns: list[_Column] = []
    for name in names:
        match = _AU_COLUMN.match(name)
        if match is None:
            continue
        number, suffix = int(match["number"]), match["before"] or match["after"]
        suffix = suffix.lower() if suffix else None
        if number not in FACS_NUMBERS:
            raise ValueError(f"{path}: column {name!r} names AU{number}, which FACS does not have; rename or remove it")
        if suffix not in _MEANING:
            raise ValueError(
                f"{path}: column {name!r} has the unknown ending {suffix!r}; known: AU01_r and AU01_c (OpenFace), "
                "AU01 (py-feat), AU1_prob and AU1_act"
            )
        column = _Column(f"AU{number}", _MEANING[suffix], suffix, name)
        twin = next((c for c in columns if (c.unit, c.meaning) == (column.unit, column.meaning)), None)
        if twin is not None:
            raise ValueError(f"{path}: columns {twin.name!r} and {name!r} both give {column.unit}; remove one")
        columns.append(column)
    if not columns:
        raise ValueError(f"{path}: no column of an action unit (such as AU01_r, AU01 or AU1_prob); give the AU table")
    return columns


def _dialect(path: Path, columns: list[_Column]) -> str:
    by_dialect = {"openface": ("r", "c"), "rapport": ("prob", "act"), "py-feat": (None,)}
    found = {d: [c.name for c in columns if c.suffix in suffixes] for d, suffixes in by_dialect.items()}
    present = [d for d, names in found.items() if names]
    if len(present) > 1:
        first, second = (found[d][0] for d in present[:2])
        raise ValueError(f"{path}: mixes the styles of {first!r} and {second!r}; keep the columns of one tool")
    return present[0]


def _refuse_several(cells: Cells) -> None:
    """Refuse a table of several clips or faces: its rows are no single timeline."""
    for name, what in _SEVERAL.items():
        count = len(set(cells.column(name))) if name in cells.names else 1
        if count > 1:
            raise ValueError(
                f"{cells.path}: column {name!r} holds {count} {what}; split it into one table for each {what[:-1]}"
            )


def _lost_rows(cells: Cells) -> NDArray[np.bool_]:
    """Rows [N] in which the tool itself says that it had no face."""
    lost = np.zeros(len(cells.rows), bool)
    for name in cells.names:
        if name.lower() in ("success", "confidence", "facescore"):
            for r, text in enumerate(cells.column(name)):
                missing = text.lower() in ("", "nan")
                lost[r] |= missing or cells.number(name, r + 1, text) < MIN_CONFIDENCE
    return lost


def _values(cells: Cells, column: _Column, lost: NDArray[np.bool_]) -> Floats:
    """A column's values [N] checked against its range, NaN in lost rows."""
    top, values = 5.0 if column.meaning == "intensity" else 1.0, np.full(len(cells.rows), np.nan)
    for r, text in enumerate(cells.column(column.name)):
        if lost[r]:
            continue
        value = cells.number(column.name, r + 1, text)
        if not -1e-6 <= value <= top + 1e-6 or (column.meaning == "act" and value not in (0.0, 1.0)):
            wanted = "0 or 1" if column.meaning == "act" else f"0 to {top:g}"
            raise ValueError(
                f"{cells.path}: column {column.name!r}, row {r + 1}: {value:g} where {wanted} is wanted; "
                "check which tool wrote the table"
            )
        values[r] = min(max(value, 0.0), top)
    return values


def _prob_and_act(found: dict[str, Floats], n_rows: int) -> tuple[Floats, Floats]:
    """Probability and activation [N] of one unit from whatever columns it has; masked where it has none."""
    masked = np.full(n_rows, np.nan)
    if "intensity" in found:
        act = found.get("act")
        if act is None:
            act = hysteresis(found["intensity"], ACT_ON_INTENSITY, ACT_OFF_INTENSITY)
        return found["intensity"] / 5.0, act
    if "prob" in found:
        act = found.get("act")
        return found["prob"], hysteresis(found["prob"], ACT_ON_PROB, ACT_OFF_PROB) if act is None else act
    return masked, found["act"]


def hysteresis(values: Floats, on: float, off: float) -> Floats:
    """0/1 [N]: on from `on` upwards, off below `off`, else as before; NaN stays NaN and starts anew as off."""
    active, out = False, np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if math.isnan(value):
            active = False
            continue
        active = value >= on or (active and value >= off)
        out[i] = float(active)
    return out
