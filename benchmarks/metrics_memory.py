"""How the memory of the challenge's scores grows with the number of items, at the same work for each.

Every item has two short predictions and three appropriate reactions. What a score allocates at its peak, beside its
inputs, is traced; twice the items may take twice as much, not four times.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.metrics import react

Floats = NDArray[np.float32]
ITEMS = (400, 800, 1600)
PREDICTIONS, FRAMES, NEIGHBOURS = 2, 20, 3
GOAL = 1.2
"""Largest power of the number of items that the peak may grow with; 1 is linear."""


def arrays(items: int, seed: int) -> tuple[Floats, Floats, NDArray[np.uint8]]:
    """Predictions, reactions of listeners, and which of these are appropriate."""
    rng = np.random.default_rng(seed)
    pred = rng.random((items, PREDICTIONS, FRAMES, 25), np.float32)
    neighbours = np.eye(items, dtype=np.uint8)
    np.put_along_axis(neighbours, rng.integers(0, items, (items, NEIGHBOURS - 1)), 1, axis=1)
    return pred, rng.random((items, FRAMES, 25), np.float32), neighbours


def peak_bytes(work: Callable[[], Any]) -> int:
    """What a call allocates at most."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure(seed: int) -> dict[str, dict[str, Any]]:
    """Per score: peak in MB at every number of items, and the power of the number that it grows with."""
    peaks: dict[str, list[int]] = {}
    for items in (20, *ITEMS):  # what is loaded or compiled once is not counted
        pred, target, neighbours = arrays(items, seed)
        for name, work in _scores(pred, target, neighbours).items():
            peaks.setdefault(name, []).append(peak_bytes(work))
    growth = {n: np.polyfit(np.log(ITEMS), np.log(p[1:]), 1)[0] for n, p in peaks.items()}
    return {
        n: {"peak_mb": [round(v / 1e6, 3) for v in p[1:]], "growth": round(float(growth[n]), 3)}
        for n, p in peaks.items()
    }


def _scores(pred: Floats, target: Floats, neighbours: NDArray[np.uint8]) -> dict[str, Callable[[], Any]]:
    return {
        "FRCorr": lambda: react.frcorr(pred, target, neighbours),
        "FRDist": lambda: react.frdist(pred, target, neighbours),
        "FRSyn": lambda: react.frsyn(pred, target, seconds=0.4),
        "FRDiv": lambda: react.frdiv(pred),
        "FRVar": lambda: react.frvar(pred),
        "FRDvs": lambda: react.frdvs(pred),
    }
