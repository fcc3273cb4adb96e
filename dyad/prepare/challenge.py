"""From a REACT challenge's folders to the product's dataset: the same splits, the challenge's pairs in both directions.

Pictures become one MP4 at the challenge's rate, sound 16 kHz mono; attributes go onto the 30 Hz grid by name. Beside
the tables stand `speaker_au/<id>.npz`, what the speaker's own face did, and `appropriate/<split>.npz`, which reactions
the challenge calls appropriate. A clip with a lost or odd file is refused, and the rest goes on.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from dyad import media
from dyad.action_units import REACT15
from dyad.clock import FPS
from dyad.layouts import attributes, challenge, react2024, react2025
from dyad.layouts.challenge import Item, Person
from dyad.prepare import pictures
from dyad.prepare.build import Built, Limits, agreed_frames, place, video_length_s, voice
from dyad.prepare.pairs import SOUND_SUFFIXES

LAYOUTS: dict[str, ModuleType] = {"react2024": react2024, "react2025": react2025}


@dataclass(frozen=True)
class _Placed:
    """One person's media below the dataset's folder."""

    video: Path
    sound: Path
    video_s: float
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which directions of a clip become sessions, and of which layout they are."""

    layout: str
    mirrored: bool = True


def listed(root: Path, layout: str, *, allow_shared_subjects: bool = False) -> dict[str, list[Item]]:
    """The pairs of every split that is there, one direction each; a shared subject is refused by name."""
    reader = LAYOUTS[layout]
    items = {
        split: reader.items(root, split, mirrored=False, allow_shared_subjects=allow_shared_subjects)
        for split in reader.splits(root)
    }
    seen: dict[str, str] = {}
    for split, group in items.items():
        for item in challenge.both_ways(group):
            if item.id in seen:
                raise ValueError(
                    f"{root}: {item.id} is listed in {seen[item.id]} and again in {split}; keep one of them"
                )
            seen[item.id] = split
    return items


def attempt(item: Item, out: Path, limits: Limits, choice: Choice) -> dict[str, Built | str]:
    """Session name → the built session, or why that direction is refused. A full disk is raised."""
    people: dict[str, _Placed] = {}
    outcomes: dict[str, Built | str] = {}
    for one in _ways(item, choice):
        try:
            people[one.speaker.clip] = _place_person(one.speaker, one.fps, out, limits)
        except ValueError as error:
            outcomes[one.id] = str(error)
    for one in _ways(item, choice):
        if one.id not in outcomes:
            try:
                outcomes[one.id] = _build(one, people, out, limits, choice.layout)
            except ValueError as error:
                outcomes[one.id] = str(error)
    _remove_unused(item, out, [b for b in outcomes.values() if not isinstance(b, str)])
    return outcomes


def _remove_unused(item: Item, out: Path, built: Sequence[Built]) -> None:
    """Remove the media of a person whom no session of this clip shows."""
    s = [b.session for b in built]
    shown = {p for one in s for p in (one.speaker_video_path, one.speaker_audio_path)}
    shown |= {p for one in s for p in (one.listener_video_path, one.listener_audio_path) if p}
    for person in (item.speaker, item.listener):
        for path in [f for f in (out / "media").iterdir() if f.stem == challenge.name_of(person)]:
            if path not in shown:
                path.unlink()


def _ways(item: Item, choice: Choice) -> list[Item]:
    return [item, item.mirrored()] if choice.mirrored else [item]


def _place_person(person: Person, fps: float, out: Path, limits: Limits) -> _Placed:
    name = challenge.name_of(person)
    (out / "media").mkdir(parents=True, exist_ok=True)
    if person.video.is_file():
        video_s = video_length_s(person.video, limits)
        video = place(person.video, out, name)
    else:
        video = out / "media" / f"{name}.mp4"
        video_s = pictures.encode(person.video, video, fps) / fps
    source = next((s for s in (person.sound, *_other_sounds(person.sound)) if s.is_file()), person.sound)
    samples, notes = voice(source, video_s, limits)
    sound = out / "media" / f"{name}.wav"
    media.write_wav(sound, samples)
    return _Placed(video, sound, video_s, tuple(notes))


def _other_sounds(path: Path) -> list[Path]:
    return [path.with_suffix(s) for s in sorted(SOUND_SUFFIXES)]


def _build(item: Item, people: Mapping[str, _Placed], out: Path, limits: Limits, layout: str) -> Built:
    """One direction as a session whose media lie in `out`."""
    speaker, listener = people[item.speaker.clip], people.get(item.listener.clip)
    whole = challenge.to_session(item, limits.au_names)
    source, notes = item.listener.attributes, list(speaker.notes)
    rows = attributes.read(source)
    n_frames = agreed_frames(len(rows) / item.fps, source, item.speaker.video, speaker.video_s, limits, notes)
    session = replace(
        whole,
        speaker_video_path=speaker.video,
        speaker_audio_path=speaker.sound,
        listener_video_path=listener.video if listener else None,
        listener_audio_path=listener.sound if listener else None,
        prob=whole.prob[:n_frames],
        act=whole.act[:n_frames],
        duration_s=n_frames / FPS,
        n_frames=n_frames,
    )
    if np.isnan(session.prob).all():
        raise ValueError(f"{source}: every row is masked; fetch the attributes again")
    lost = int(np.isnan(rows[:, : attributes.N_UNITS]).all(axis=1).sum())
    _write_speaker_units(item, out, n_frames, limits.au_names, notes)
    unused = tuple(u for u in REACT15.units if u not in limits.au_names)
    return Built(session, layout, lost, unused, tuple(notes))


def _write_speaker_units(item: Item, out: Path, n_frames: int, au_names: Sequence[str], notes: list[str]) -> None:
    """What the speaker's own face did, [T, A]: training reads it where it is known."""
    try:
        prob, _ = attributes.units(attributes.read(item.speaker.attributes), item.fps, au_names)
    except ValueError as error:
        notes.append(f"the speaker's own units are unknown: {error}")
        return
    known = np.full((n_frames, len(au_names)), np.nan, np.float32)
    known[: len(prob)] = prob[:n_frames]
    (out / "speaker_au").mkdir(exist_ok=True)
    np.savez_compressed(out / "speaker_au" / f"{item.id}.npz", au=known, names=np.array(au_names))


def write_appropriate(
    root: Path, out: Path, items: Mapping[str, Sequence[Item]], taken: Container[str], choice: Choice
) -> list[str]:
    """Write ids and appropriateness matrix [N, N] of the sessions taken, per split; returns what could not be known."""
    notes: list[str] = []
    for split, group in items.items():
        ids = [i.id for i in (challenge.both_ways(group) if choice.mirrored else group)]
        keep = [n for n, name in enumerate(ids) if name in taken]
        try:
            matrix = LAYOUTS[choice.layout].neighbours(root, split, mirrored=choice.mirrored)
        except ValueError as error:
            notes.append(f"{split}: which reactions are appropriate is unknown: {error}")
            continue
        (out / "appropriate").mkdir(exist_ok=True)
        np.savez_compressed(
            out / "appropriate" / f"{split}.npz",
            ids=np.array([ids[n] for n in keep], dtype=np.str_),
            neighbours=matrix[np.ix_(keep, keep)],
        )
    return notes
