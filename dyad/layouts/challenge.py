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

from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.layouts import attributes
from dyad.prepare.pairs import VIDEO_SUFFIXES
from dyad.session import Session

Floats = NDArray[np.float32]
SPLITS = ("train", "val", "test")
SCORED_FRAMES = 750
"""Frames that the challenge scores; clips of REACT2024 have one more."""
N_COEFFICIENTS = 58


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
    prob, act = attributes.units(attributes.read(item.listener.attributes), item.fps, au_names)
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
    """The first `frames` frames of all items, in the challenge's own units; a shorter clip is refused by name."""
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


def _first(person: Person, frames: int) -> Floats:
    values = attributes.read(person.attributes)
    if len(values) < frames:
        raise ValueError(
            f"{person.attributes}: {len(values)} frames, but {frames} are to be scored; "
            f"give frames={len(values)} or fewer, or read the clips one by one with sequences"
        )
    return values[:frames]


def sequences(items: Sequence[Item]) -> Iterator[tuple[Floats, Floats]]:
    """Listener's and speaker's attributes [T, 25] of every item, each as long as its file."""
    for item in items:
        yield attributes.read(item.listener.attributes), attributes.read(item.speaker.attributes)


def read_coefficients(path: Path, mean_face: Path | None = None) -> Floats:
    """3DMM coefficients [T, 58]: 52 of expression, 3 of rotation, 3 of translation; less `mean_face` where given."""
    arrays: list[Floats] = []
    for file in (path, *([mean_face] if mean_face else [])):
        if not file.is_file():
            raise ValueError(f"{file}: no such file; fetch it again")
        values = np.load(file, allow_pickle=False)
        if values.size == 0 or values.size % N_COEFFICIENTS or values.shape[-1] != N_COEFFICIENTS:
            raise ValueError(f"{file}: has shape {values.shape}, wanted (frames, 58); is it a file of coefficients?")
        arrays.append(values.reshape(-1, N_COEFFICIENTS).astype(np.float32))
    return arrays[0] if mean_face is None else arrays[0] - arrays[1]
