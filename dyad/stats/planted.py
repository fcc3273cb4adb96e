"""The lags that a synthetic dataset was made with, where it says so: what the measured ones should come near.

ROOT/truth/<id>.npz holds the speaker's events and the listener's movements with their causes. The lag of speaker's unit
c and listener's unit u is the median, over all movements of u that an event with c caused, of movement minus event.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.stats.lags import Lags

CAUSE, UNIT, START = 0, 1, 3
"""Columns of the movements."""
OFTEN = 50
"""Movements of a pair that should be found."""
LEAST = 10
"""Movements that a median needs."""


@dataclass(frozen=True)
class Check:
    """How near the measured lags come to the planted ones."""

    planted: int
    """Pairs that were planted often enough."""
    found: int
    """Of these, the ones that stood out from chance."""
    median_error_ms: float
    worst_error_ms: float
    """Of the pairs found."""


def check(found: Lags, truth: Mapping[tuple[str, str], tuple[float, int]], least: int = OFTEN) -> Check:
    """Compare measured lags with those planted in `least` movements or more."""
    wanted = {pair: lag for pair, (lag, n) in truth.items() if n >= least}
    errors = [
        abs(lag.lag_ms - wanted[pair])
        for lag in found.real()
        if (pair := (lag.cue.removesuffix(" rises"), lag.unit)) in wanted
    ]
    median, worst = (float(np.median(errors)), max(errors)) if errors else (float("nan"), float("nan"))
    return Check(len(wanted), len(errors), median, worst)


def lags_ms(root: Path, ids: Iterable[str]) -> dict[tuple[str, str], tuple[float, int]]:
    """(speaker's unit, listener's unit) → median lag in ms and the number of movements; empty without any truth."""
    from dyad.synthetic.script import EXPRESSION

    gaps: dict[tuple[str, str], list[float]] = defaultdict(list)
    for path in (root / "truth" / f"{name}.npz" for name in ids):
        if not path.is_file():
            continue
        with np.load(path, allow_pickle=False) as truth:
            events, movements = truth["events"], truth["movements"]
        for row in movements[movements[:, CAUSE] >= 0]:
            event = events[int(row[CAUSE])]
            for cue in EXPRESSION.get(str(event["kind"]), {}):
                gap = (float(row[START]) - float(event["onset"])) * 1000 / FPS
                gaps[cue, SEED17.units[int(row[UNIT])]].append(gap)
    return {pair: (float(np.median(g)), len(g)) for pair, g in gaps.items() if len(g) >= LEAST}
