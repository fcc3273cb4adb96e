"""REACT2023 and REACT2024 on disk: NoXI, RECOLA and UDIVA, 25 frames a second, clips of 751 frames.

    ROOT/{train,val,test}.csv                  index, speaker_path, listener_path: NoXI/005_…_Paris/Expert_video/1
    ROOT/<split>/Video_files/<path>/1.png …    numbered pictures (or <path>.mp4)
    ROOT/<split>/Audio_files/<path>.wav        44.1 kHz
    ROOT/<split>/Emotion/<path>.csv            25 attributes (`dyad/layouts/attributes.py`)
    ROOT/<split>/3D_FV_files/<path>.npy        58 coefficients
    ROOT/data_indices.csv, ROOT/Approprirate_facial_reaction.npy    which reactions are appropriate (their spelling)

Trap: NoXI's Emotion folders may be called P1 and P2. P1 is the expert and P2 the novice, whoever speaks: to name them
after the role gives every mirrored pair the wrong person's attributes.
Source: the challenge's description and baseline (data organisation, tool/matrix_split.py).
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import SEED17
from dyad.layouts import challenge
from dyad.layouts.challenge import SCORED_FRAMES, SPLITS, Floats, Item, Person, Scored
from dyad.prepare.cells import Cells
from dyad.session import Session

RATE_HZ = 25.0
CLIP_FRAMES = frozenset((SCORED_FRAMES, SCORED_FRAMES + 1))
"""What a clip has: 751, or what is left where the last frame was dropped, as the 2023 evaluation did."""
MATRIX, INDEX = "Approprirate_facial_reaction.npy", "data_indices.csv"
_ROLES = frozenset(("Expert_video", "Novice_video", "P1", "P2", "FC1", "FC2"))
"""Names of a seat, not of a person."""
_SEATS = {"Expert_video": "P1", "Novice_video": "P2"}


def root_of(root: Path | str) -> Path:
    """The folder that holds the lists, given it or the folder above its `data`."""
    root = Path(root)
    return root / "data" if (root / "data").is_dir() and not _lists(root) else root


def _lists(root: Path) -> list[str]:
    return [s for s in SPLITS if (root / f"{s}.csv").is_file()]


def splits(root: Path | str) -> list[str]:
    """The splits that have a list; raises ValueError when none has."""
    found = _lists(root_of(root))
    if not found:
        raise ValueError(f"{root}: no train.csv, val.csv or test.csv in it; give the folder that holds the lists")
    return found


def items(root: Path | str, split: str, *, mirrored: bool = True, allow_shared_subjects: bool = False) -> list[Item]:
    """The pairs of a split in the challenge's order, then mirrored unless told otherwise.

    Raises ValueError naming a subject that is in another split too, unless `allow_shared_subjects`.
    """
    root, present = root_of(root), splits(root)
    if split not in present:
        raise ValueError(f"{root}: no {split}.csv in it; there is {', '.join(f'{s}.csv' for s in present)}")
    listed = {s: _listed(root, s) for s in (present if not allow_shared_subjects else [split])}
    challenge.refuse_leaks(listed)
    return challenge.both_ways(listed[split]) if mirrored else listed[split]


def _listed(root: Path, split: str) -> list[Item]:
    path = root / f"{split}.csv"
    cells = Cells.read(path)
    if not {"speaker_path", "listener_path"} <= set(cells.names):
        raise ValueError(f"{path}: has the columns {', '.join(cells.names)}, wanted speaker_path and listener_path")
    found: list[Item] = []
    for speaker, listener in zip(cells.column("speaker_path"), cells.column("listener_path"), strict=True):
        one, other = (_person(root / split, clip, path) for clip in (speaker, listener))
        site, *middle, _, _ = speaker.split("/")
        occasion = "/".join((site, *middle))
        found.append(Item(split=split, fps=RATE_HZ, occasion=occasion, speaker=one, listener=other))
    if not found:
        raise ValueError(f"{path}: lists no pair; fetch it again")
    return found


def _person(folder: Path, clip: str, listed_in: Path) -> Person:
    if len(clip.split("/")) not in (4, 5):
        raise ValueError(f"{listed_in}: path {clip!r}, wanted site/chat/person/clip; fetch the list again")
    return Person(
        clip=clip,
        subject=subject_of(clip),
        video=challenge.video_at(folder / "Video_files" / clip),
        sound=folder / "Audio_files" / f"{clip}.wav",
        attributes=_emotion(folder / "Emotion", clip),
        coefficients=folder / "3D_FV_files" / f"{clip}.npy",
        frames=CLIP_FRAMES,
    )


def _emotion(folder: Path, clip: str) -> Path:
    """The person's own table, by their name or by their seat."""
    named = folder / f"{clip}.csv"
    *above, person, number = clip.split("/")
    seated = folder.joinpath(*above, _SEATS.get(person, person), f"{number}.csv")
    return seated if seated.is_file() and not named.is_file() else named


def subject_of(clip: str) -> str:
    """Who is seen, as far as the path tells: RECOLA P25, UDIVA 005, else the seat of one recording.

    UDIVA's chats are called after both participants, 005013, who sit at FC1 and FC2.
    """
    site, *middle, person, _ = clip.split("/")
    chat = middle[-1] if middle else ""
    if re.fullmatch(r"\d{6}", chat) and person in ("FC1", "FC2"):
        return f"{site} {chat[:3] if person == 'FC1' else chat[3:]}"
    return f"{site} {chat} {person}" if person in _ROLES else f"{site} {person}"


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
    """Attributes [N, frames, 25] at 25 frames a second, as the challenge's metrics want them."""
    found = items(root, split, mirrored=mirrored, allow_shared_subjects=allow_shared_subjects)
    return challenge.stacked(found, frames)


def coefficients(item: Item, *, mean_face: Path | None = None) -> Floats:
    """The listener's 3DMM coefficients [T, 58], less the mean face where its file is given."""
    return challenge.coefficients(item.listener, mean_face)


def neighbours(root: Path | str, split: str, *, mirrored: bool = True) -> NDArray[np.uint8]:
    """Which listener j is appropriate for speaker i, [N, N] of 0 and 1 in the order of `items`.

    Cut from the matrix of all clips: M listed directions, then the M mirrored, in rows and columns alike. Without that
    matrix, what the baseline's tool cut from it, `neighbour_emotion_<split>.npy`, is taken.
    """
    root = root_of(root)
    listed = _listed(root, split)
    if (root / MATRIX).is_file() and (root / INDEX).is_file():
        whole = np.load(root / MATRIX, mmap_mode="r", allow_pickle=False)
        at = _places(root, whole.shape, [item.speaker.clip for item in listed])
        rows = np.array([*at, *(p + len(whole) // 2 for p in at)])
        matrix = (np.asarray(whole[rows])[:, rows] == 1).astype(np.uint8)
    else:
        matrix = _cut_before(root / f"neighbour_emotion_{split}.npy", 2 * len(listed))
    return matrix if mirrored else matrix[: len(listed), : len(listed)]


def _places(root: Path, shape: tuple[int, ...], clips: Sequence[str]) -> list[int]:
    """Rows of the matrix that belong to the listed clips."""
    cells = Cells.read(root / INDEX)
    if shape != (2 * len(cells.rows),) * 2:
        raise ValueError(
            f"{root / MATRIX}: has shape {shape}, but {INDEX} lists {len(cells.rows)} clips, which makes "
            f"({2 * len(cells.rows)}, {2 * len(cells.rows)}); fetch the two files of the same year"
        )
    known: dict[tuple[str, ...], int] = {}
    for r, (site, chat, clip) in enumerate(row[:3] for row in cells.rows):
        if known.setdefault((site.strip().upper(), chat.strip(), clip.strip()), r) != r:
            raise ValueError(f"{root / INDEX}: row {r + 1} lists {site}/{chat}/{clip} a second time; remove one")
    missing = [clip for clip in clips if _key(clip) not in known]
    if missing:
        raise ValueError(
            f"{root / INDEX}: lacks {missing[0]} ({len(missing)} of {len(clips)} clips of the split); "
            "without a place in the matrix nobody knows what is appropriate for it: fetch the full index"
        )
    return [known[_key(clip)] for clip in clips]


def _key(clip: str) -> tuple[str, str, str]:
    """A clip as the index writes it: UDIVA's task stands behind the chat."""
    site, *middle, _, number = clip.split("/")
    return site.upper(), "_".join(reversed(middle)), number


def _cut_before(path: Path, size: int) -> NDArray[np.uint8]:
    if not path.is_file():
        raise ValueError(
            f"{path}: neither it nor {MATRIX} with {INDEX} is there; ask the organisers for the matrix: "
            "which reactions are appropriate cannot be made up"
        )
    matrix = np.load(path, allow_pickle=False)
    if matrix.shape != (size, size):
        raise ValueError(f"{path}: has shape {matrix.shape}, wanted ({size}, {size}): the list, and the list mirrored")
    return (matrix == 1).astype(np.uint8)
