"""What the REACT challenges' layouts have in common: two people of one clip, each of whom may be the speaker.

An `Item` is one direction of a clip. A split is scored in the order of `both_ways`: the listed directions first, then
all of them mirrored; the appropriateness matrix has the same order. Only files that are asked for are opened.
Shapes: N items, T frames at the challenge's own rate, 25 attributes, 58 coefficients.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dyad.action_units import REACT_ATTRIBUTES, SEED17
from dyad.clock import FPS
from dyad.layouts import attributes
from dyad.metrics.checks import require_finite
from dyad.prepare.pairs import VIDEO_SUFFIXES
from dyad.session import Session

Floats = NDArray[np.float32]
SPLITS = ("train", "val", "test")
SCORED_FRAMES = 750
"""Frames that the challenge scores; clips of REACT2024 have one more."""
N_COEFFICIENTS = 58
TOLERANCE_S = 0.1
"""By so much two people's files of one clip may differ in length; both are cut to the shorter one."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person in one clip, and where the files are that the challenge has of them."""

    clip: str
    """Path of the clip below each folder of a kind, without an ending."""
    subject: str
    """Who it is, as far as the paths tell."""
    video: Path
    """A folder of numbered pictures, or a video."""
    sound: Path
    attributes: Path
    coefficients: Path
    frames: frozenset[int] = frozenset()
    """How many frames the layout says a clip may have; any number when empty."""

    def require_frames(self, found: int, path: Path) -> None:
        """Raise ValueError when `path`, one of the person's files, has another number of frames than the layout."""
        if self.frames and found not in self.frames:
            raise ValueError(
                f"{path}: {found} frames, but a clip has {' or '.join(map(str, sorted(self.frames)))}; the file is cut "
                "off or another clip's: fetch it again"
            )


@dataclass(frozen=True, kw_only=True)
class Item:
    """A speaker and who listens; `occasion` is the recording that both were in."""

    split: str
    fps: float
    occasion: str
    speaker: Person
    listener: Person

    @property
    def id(self) -> str:
        """Name of the session: the speaker's clip."""
        return name_of(self.speaker)

    def mirrored(self) -> "Item":
        """The same clip with the roles exchanged."""
        return replace(self, speaker=self.listener, listener=self.speaker)


def name_of(person: Person) -> str:
    """A file name for a person's clip."""
    return person.clip.replace("/", "_").replace(" ", "_")


def both_ways(items: Sequence[Item]) -> list[Item]:
    """The items, then all of them mirrored: the challenge's order."""
    return [*items, *(item.mirrored() for item in items)]


def video_at(stem: Path) -> Path:
    """The folder of pictures `stem`, or the video of this name beside it."""
    if not stem.is_dir():
        for suffix in sorted(VIDEO_SUFFIXES):
            video = stem.with_name(stem.name + suffix)
            if video.is_file():
                return video
    return stem


def refuse_leaks(splits: Mapping[str, Sequence[Item]]) -> None:
    """Raise ValueError naming the first subject, or recording, that two splits share."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for split, items in splits.items():
        for item in items:
            people = [("subject", p.subject, p.clip) for p in (item.speaker, item.listener)]
            for kind, name, clip in (*people, ("recording", item.occasion, item.speaker.clip)):
                other, where = seen.setdefault((kind, name), (split, clip))
                if other != split:
                    raise ValueError(
                        f"{kind} {name} is in both {other} ({where}) and {split} ({clip}), so that {split} would be "
                        "scored on who was learned; move all of its clips to one split, or allow shared subjects"
                    )


def to_session(item: Item, au_names: Sequence[str] = SEED17.units) -> Session:
    """The item with the listener's units on the 30 Hz grid, found by name; what the challenge lacks is NaN.

    The media are the challenge's own files: `python -m dyad.prepare` makes those that the rest of the product reads.
    """
    prob, act = attributes.units(_attributes(item.listener), item.fps, au_names)
    session = Session(
        id=item.id,
        speaker_video_path=item.speaker.video,
        speaker_audio_path=item.speaker.sound,
        listener_video_path=item.listener.video,
        listener_audio_path=item.listener.sound,
        au_names=tuple(au_names),
        prob=prob,
        act=act,
        fps=float(FPS),
        duration_s=len(prob) / FPS,
        n_frames=len(prob),
    )
    session.validate()
    return session


@dataclass(frozen=True)
class Scored:
    """What the metrics of the challenge compare with: float32 [N, T, 25], in the order of `ids`."""

    ids: tuple[str, ...]
    listener: Floats
    speaker: Floats


def stacked(items: Sequence[Item], frames: int = SCORED_FRAMES) -> Scored:
    """The first `frames` frames of all items, in the challenge's own units.

    A shorter clip, and one with a row without a face, is refused by name.
    """
    by_clip: dict[str, Floats] = {}  # mirrored items share their files
    for item in items:
        for person in (item.listener, item.speaker):
            if person.clip not in by_clip:
                by_clip[person.clip] = _first(person, frames)
    return Scored(
        tuple(item.id for item in items),
        np.stack([by_clip[item.listener.clip] for item in items]),
        np.stack([by_clip[item.speaker.clip] for item in items]),
    )


def _attributes(person: Person) -> Floats:
    values = attributes.read(person.attributes)
    person.require_frames(len(values), person.attributes)
    return values


def _known(person: Person) -> Floats:
    """The attributes as a score needs them: all of them, in every frame."""
    values = _attributes(person)
    require_finite(values, session=str(person.attributes), channels=REACT_ATTRIBUTES, what="attributes")
    return values


def _first(person: Person, frames: int) -> Floats:
    values = _known(person)
    if len(values) < frames:
        raise ValueError(
            f"{person.attributes}: {len(values)} frames, but {frames} are to be scored; "
            f"give frames={len(values)} or fewer, or read the clips one by one with sequences"
        )
    return values[:frames]


def sequences(items: Sequence[Item]) -> Iterator[tuple[Floats, Floats]]:
    """Listener's and speaker's attributes [T, 25] of every item, as long as the clip.

    A row without a face is refused by name, and so are two files whose lengths differ by more than `TOLERANCE_S`.
    """
    for item in items:
        listener, speaker = _known(item.listener), _known(item.speaker)
        frames = min(len(listener), len(speaker))
        if max(len(listener), len(speaker)) - frames > TOLERANCE_S * item.fps:
            raise ValueError(
                f"{item.listener.attributes}: {len(listener)} frames, but {item.speaker.attributes} has "
                f"{len(speaker)}; the two are of one clip: fetch the one that is cut off again"
            )
        yield listener[:frames], speaker[:frames]


def coefficients(person: Person, mean_face: Path | None = None) -> Floats:
    """3DMM coefficients [T, 58]: 52 of expression, 3 of rotation, 3 of translation; less `mean_face` where given.

    NaN where the file has no face. A file without any, or of other frames than the layout says, is refused by name.
    """
    values = _coefficients(person.coefficients)
    person.require_frames(len(values), person.coefficients)
    if mean_face is None:
        return values
    mean = _coefficients(mean_face)
    if len(mean) != 1:
        raise ValueError(f"{mean_face}: has {len(mean)} rows, wanted the one of the mean face; is it a clip's file?")
    return values - mean


def _coefficients(path: Path) -> Floats:
    values = attributes.load_array(path)
    if values.size == 0 or values.size % N_COEFFICIENTS or values.shape[-1] != N_COEFFICIENTS:
        raise ValueError(f"{path}: has shape {values.shape}, wanted (frames, 58); is it a file of coefficients?")
    values = values.reshape(-1, N_COEFFICIENTS).astype(np.float32)
    require_finite(values, session=str(path), what="coefficients", scored=~np.isnan(values))
    if np.isnan(values).any(axis=1).all():
        raise ValueError(f"{path}: has no row without NaN; fetch it again or take the clip off the list")
    return values
