"""A text table: header, cells, and a finite number out of a cell, or a refusal naming file, column and row."""

import csv
import math
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cells:
    """Names of the columns and the rows as text; rows count from 1 in messages, without the header."""

    path: Path
    names: list[str]
    rows: list[list[str]]

    @classmethod
    def read(cls, path: Path) -> "Cells":
        """Read a table with commas, semicolons or tabs; raises ValueError when it is none or cut off."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a readable text table ({error}); export it as CSV in UTF-8") from None
        lines = [line for line in text.splitlines() if line.strip(",;\t ")]
        if not lines:
            raise ValueError(f"{path}: is empty; extract the action units again")
        names, *rows = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count))
        for r, row in enumerate(rows, start=1):
            if len(row) != len(names):
                raise ValueError(
                    f"{path}: row {r} has {len(row)} cells, the header {len(names)}; "
                    "the file is cut off, export it again"
                )
        return cls(path, [name.strip() for name in names], rows)

    def column(self, name: str) -> list[str]:
        """A column's text, stripped; raises ValueError when several have its name."""
        if self.names.count(name) > 1:
            raise ValueError(
                f"{self.path}: {self.names.count(name)} columns are called {name!r}, wanted one; "
                "rename or remove the others"
            )
        return self.at(self.names.index(name))

    def at(self, place: int) -> list[str]:
        """The text of the column at a place, stripped."""
        return [row[place].strip() for row in self.rows]

    def number(self, name: str, row: int, text: str) -> float:
        """`text`, the cell of column `name` in `row`, as a finite number; raises ValueError otherwise."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"{self.path}: column {name!r}, row {row}: {text or 'an empty cell'} is not a number; "
                "set success to 0 in rows without a face, or extract the table again"
            )
        return value

    def numbers(self, names: Container[str]) -> dict[str, NDArray[np.float64]]:
        """Columns [N] whose lower-case name is in `names`, by that name."""
        found: dict[str, NDArray[np.float64]] = {}
        for name in [n for n in self.names if n.lower() in names]:
            if name.lower() in found:
                raise ValueError(f"{self.path}: has the column {name.lower()!r} in two spellings; remove one")
            column = self.column(name)
            found[name.lower()] = np.array([self.number(name, r, t) for r, t in enumerate(column, start=1)])
        return found
