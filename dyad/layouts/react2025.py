"""REACT2025 and REACT2026 on disk: MARS, 30 frames a second, clips of 58 to over 20 000 frames.

    ROOT/<split>/video-face-crop/<role>/session<k>/<name>.mp4     384 x 384 (else video-raw, 1920 x 1080)
    ROOT/<split>/audio/<role>/session<k>/<name>.wav
    ROOT/<split>/facial-attributes/<role>/session<k>/<name>.npy   [T, 25]
    ROOT/<split>/coefficients/<role>/session<k>/<name>.npy        [T, 58]

<role> is speaker or listener; the pair of a file has the same name under the other role. `session<k>` is the topic that
was talked about, in every split, so that what all listeners did on a topic is appropriate for it. Who the people are is
not in the paths: a recording's <name> in two splits is refused, nothing finer can be checked.
Source: the challenge's description and baseline (dataset/react_2025.py).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.layouts import challenge
from dyad.layouts.challenge import SCORED_FRAMES, SPLITS, Floats, Item, Person, Scored
from dyad.session import Session

RATE_HZ = 30.0
DRAWN = 10
"""Appropriate reactions that the challenge compares one prediction with."""
_VIDEOS = ("video-face-crop", "video-raw")
_KINDS = (*_VIDEOS, "facial-attributes")


def root_of(root: Path | str) -> Path:
    """The folder that holds the splits, given it or the folder above its `data`."""
    root = Path(root)
    return root / "data" if (root / "data").is_dir() and not _folders(root) else root


def _folders(root: Path) -> list[str]:
    return [s for s in SPLITS if any((root / s / kind).is_dir() for kind in _KINDS)]


def splits(root: Path | str) -> list[str]:
    """The splits that are there; raises ValueError when none is."""
    found = _folders(root_of(root))
    if not found:
        raise ValueError(f"{root}: no train, val or test with {' or '.join(_KINDS)} in it; give the folder above them")
    return found


def items(root: Path | str, split: str, *, mirrored: bool = True, allow_shared_subjects: bool = False) -> list[Item]:
    """The pairs of a split by topic and name, then mirrored unless told otherwise.

    Raises ValueError naming a recording that is in another split too, unless `allow_shared_subjects`.
    """
    root, present = root_of(root), splits(root)
    if split not in present:
        raise ValueError(f"{root}: no {split} in it; there is {', '.join(present)}")
    listed = {s: _listed(root / s, s) for s in (present if not allow_shared_subjects else [split])}
    challenge.refuse_leaks(listed)
    return challenge.both_ways(listed[split]) if mirrored else listed[split]


def _listed(folder: Path, split: str) -> list[Item]:
    """One item for every name under either role: what a download lost is missed when it is opened, and then by name."""
    found: set[tuple[str, str]] = set()
    for kind in _KINDS:
        files = (folder / kind).glob("*/session*/*.*")
        found |= {(f.parent.name, f.stem) for f in files if f.parent.parent.name in ("speaker", "listener")}
    if not found:
        raise ValueError(f"{folder}: no <role>/session<k>/<name> in {' or '.join(_KINDS)}; fetch the split again")
    return [
        Item(
            split=split,
            fps=RATE_HZ,
            occasion=name,
            speaker=_person(folder, "speaker", topic, name),
            listener=_person(folder, "listener", topic, name),
        )
        for topic, name in sorted(found, key=lambda key: (_number(key[0]), key))
    ]


def _number(topic: str) -> int:
    digits = re.search(r"\d+$", topic)
    return int(digits[0]) if digits else -1


def _person(folder: Path, role: str, topic: str, name: str) -> Person:
    clip = f"{role}/{topic}/{name}"
    videos = [video for kind in _VIDEOS if (video := challenge.video_at(folder / kind / clip)).exists()]
    return Person(
        clip=clip,
        subject=f"{role} of {name}",
        video=videos[0] if videos else folder / _VIDEOS[0] / f"{clip}.mp4",
        sound=folder / "audio" / f"{clip}.wav",
        attributes=folder / "facial-attributes" / f"{clip}.npy",
        coefficients=folder / "coefficients" / f"{clip}.npy",
    )


def sessions(
    root: Path | str,
    split: str,
    *,
    au_names: Sequence[str] = SEED17.units,
    mirrored: bool = True,
    allow_shared_subjects: bool = False,
) -> Iterator[Session]:
    """The pairs as sessions at 30 Hz, one in memory at a time; units by name, NaN where the challenge has none."""
    for item in items(root, split, mirrored=mirrored, allow_shared_subjects=allow_shared_subjects):
        yield challenge.to_session(item, au_names)


def attributes(
    root: Path | str,
    split: str,
    *,
    frames: int = SCORED_FRAMES,
    mirrored: bool = True,
    allow_shared_subjects: bool = False,
) -> Scored:
    """Attributes [N, frames, 25], as the challenge's metrics want them; `challenge.sequences` reads whole clips."""
    found = items(root, split, mirrored=mirrored, allow_shared_subjects=allow_shared_subjects)
    return challenge.stacked(found, frames)


def coefficients(item: Item, *, mean_face: Path | None = None) -> Floats:
    """The listener's 3DMM coefficients [T, 58], less the mean face where its file is given."""
    return challenge.coefficients(item.listener, mean_face)


def neighbours(root: Path | str, split: str, *, mirrored: bool = True) -> NDArray[np.uint8]:
    """Which listener j is appropriate for speaker i, [N, N] of 0 and 1 in the order of `items`.

    All who heard the same topic in the same role: whoever listens answers as listeners do, whoever speaks as speakers.
    """
    found = items(root, split, mirrored=mirrored, allow_shared_subjects=True)
    heard = [item.listener.clip.split("/")[:2] for item in found]
    _, group = np.unique(heard, axis=0, return_inverse=True)
    return (group[:, None] == group[None, :]).astype(np.uint8)


def drawn(matrix: NDArray[np.uint8], *, count: int = DRAWN, seed: int = 0) -> NDArray[np.intp]:
    """`count` appropriate reactions per item, [N, count]: its own first, then a draw that the seed decides.

    The reference draws anew in every run; with fewer than `count` to choose from it draws some of them twice, as here.
    """
    out = np.empty((len(matrix), count), np.intp)
    for i, row in enumerate(matrix):
        others = np.setdiff1d(np.flatnonzero(row), [i])
        pool = others if len(others) else np.array([i])
        rng = np.random.default_rng([seed, i])
        out[i] = [i, *rng.choice(pool, count - 1, replace=len(pool) < count - 1)]
    return out
