"""Refuse what no score can be trusted on: numbers that are not finite, shapes that do not fit.

Shapes: N items, K predictions per item, T frames, D channels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import REACT_ATTRIBUTES

Numbers = NDArray[np.floating[Any]]

REACT_CHANNELS = REACT_ATTRIBUTES
"""The 25 attributes of the REACT challenge by name."""


def channel_names(count: int) -> tuple[str, ...]:
    """Names of `count` channels: the challenge's when there are 25 of them, else "channel 0" and so on."""
    return REACT_CHANNELS if count == len(REACT_CHANNELS) else tuple(f"channel {d}" for d in range(count))


def require_finite(
    values: Numbers,
    *,
    session: str,
    channels: Sequence[str] | None = None,
    what: str = "prediction",
    scored: NDArray[np.bool_] | None = None,
) -> None:
    """Raise ValueError that names session, channel and frame of the first value that is NaN or infinite.

    `values` [T, D], or [T] without a channel's name; only where `scored`, of the same shape, when it is given.
    """
    remedy = f"but a score needs finite numbers; make the {what} anew or leave the session out"
    _refuse(~np.isfinite(values) & (True if scored is None else scored), values, session, channels, what, remedy)


def require_probabilities(
    values: Numbers,
    *,
    session: str,
    channels: Sequence[str] | None = None,
    what: str = "prediction",
    scored: NDArray[np.bool_] | None = None,
) -> None:
    """`require_finite`, and the same for the first value that is not in [0, 1]."""
    require_finite(values, session=session, channels=channels, what=what, scored=scored)
    bad = ((values < 0) | (values > 1)) & (True if scored is None else scored)
    _refuse(bad, values, session, channels, what, "but a probability lies in [0, 1]; apply the sigmoid first")


def labelled(
    pred: Numbers,
    true: Numbers,
    *,
    session: str = "the scored frames",
    channels: Sequence[str] | None = None,
    what: str = "prediction",
) -> NDArray[np.bool_]:
    """Where `true`, of the shape of `pred` [T, D] or [T], has a label; what is scored there must be finite on both."""
    if pred.shape != true.shape:
        raise ValueError(
            f"{what} and label of {session}: one shape is needed; got {list(pred.shape)} and {list(true.shape)}; "
            "cut both to the same frames and units first"
        )
    known = ~np.isnan(true)
    require_finite(true, session=session, channels=channels, what="label", scored=known)
    require_finite(pred, session=session, channels=channels, what=what, scored=known)
    return known


def _refuse(
    bad: NDArray[np.bool_], values: Numbers, session: str, channels: Sequence[str] | None, what: str, remedy: str
) -> None:
    """Raise ValueError for the first cell of [T, D] or [T] that is `bad`."""
    if not bad.any():
        return
    frame, *channel = (int(v) for v in np.argwhere(bad)[0])
    name = f"{(channels or channel_names(values.shape[1]))[channel[0]]} is " if channel else ""
    at = f"{name}{values[frame, *channel]} at frame {frame} ({int(bad.sum())} such values in all)"
    raise ValueError(f"{what} of {session}: {at}, {remedy}")


def require_reactions(pred: Numbers, other: Numbers, what: str) -> None:
    """Raise ValueError unless `pred` is [N, K, T, D] and `other` [N, T, D]."""
    if pred.ndim == 4 and other.shape == (pred.shape[0], *pred.shape[2:]) and pred.size:
        return
    raise ValueError(
        f"pred [N, K, T, D] and {what} [N, T, D] of the same N, T and D are needed; got {list(pred.shape)} and "
        f"{list(other.shape)}; cut both to the same frames and channels first"
    )


def finite_item(pred: Numbers, item: int) -> NDArray[np.float32]:
    """Predictions [K, T, D] of one item as the challenge reads them, in float32; refused when not finite."""
    made = np.asarray(pred[item], np.float32)
    if not np.isfinite(made).all():
        for k, one in enumerate(made):
            require_finite(one, session=f"item {item}, prediction {k}")
    return made


def finite_sequences(values: Numbers, what: str) -> NDArray[np.float32]:
    """[N, T, D] in float32; refused when not finite."""
    made = np.asarray(values, np.float32)
    for i, one in enumerate(made):
        require_finite(one, session=f"item {i}", what=what)
    return made


def neighbours_of(neighbours: NDArray[Any], items: int) -> list[NDArray[np.intp]]:
    """Indices of the appropriate reactions of every item; a matrix of another size and an empty row are refused."""
    if neighbours.shape != (items, items):
        raise ValueError(
            f"neighbours [{items}, {items}] are needed for {items} items; got {list(neighbours.shape)}; "
            "take the rows and columns of the split that is scored"
        )
    found = [np.flatnonzero(row == 1) for row in neighbours]
    lonely = [i for i, row in enumerate(found) if len(row) == 0]
    if lonely:
        raise ValueError(
            f"neighbours: row {lonely[0]} has no 1 ({len(lonely)} such rows), but every item needs an appropriate "
            "reaction; an item's own reaction is one, so set the diagonal"
        )
    return found
