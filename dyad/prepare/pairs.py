"""Which files of a folder belong together.

A file's role is the word `speaker` or `listener` in its name or in the name of a folder above it; what is left of its
path is the pair's id. All of these are the pair `s01`:

    RAW/s01_speaker.mp4    RAW/s01/speaker.mp4    RAW/speakers/s01.mp4    the speaker's pictures (any video format)
    RAW/s01_speaker.wav    RAW/s01/speaker.wav    RAW/speakers/s01.wav    the speaker's voice; else the video's own
    RAW/s01_listener.csv   RAW/s01/listener.csv   RAW/listeners/s01.csv   the listener's action units
    RAW/s01_listener.mp4   …                                              the listener's pictures, if there are any

Without such a word a video or sound is the speaker's and a table the listener's (`s01.mp4` + `s01.csv`). A tag behind
the id is ignored: `s01_listener.openface.csv`, `s01_listener_au.csv`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

VIDEO_SUFFIXES = frozenset((".mp4", ".mpg", ".mpeg", ".mkv", ".mov", ".avi", ".webm", ".m4v"))
SOUND_SUFFIXES = frozenset((".wav", ".flac", ".mp3", ".m4a", ".ogg"))
TABLE_SUFFIXES = frozenset((".csv", ".tsv"))

_ROLE = re.compile(
    r"^(?P<before>.*?)(?:^|[_.\- ])(?P<role>speaker|listener)s?(?=$|[_.\- ])(?P<after>.*)$", re.IGNORECASE
)
_TAG = re.compile(r"(?:[_.\- ]|^)(?:aus?|openface|py-?feat|blendshapes|video|audio|face)$", re.IGNORECASE)


@dataclass
class Pair:
    """Files of one conversation; more than one file of a kind is a mistake that `build` reports."""

    id: str
    speaker_videos: list[Path] = field(default_factory=list[Path])
    speaker_sounds: list[Path] = field(default_factory=list[Path])
    listener_videos: list[Path] = field(default_factory=list[Path])
    listener_sounds: list[Path] = field(default_factory=list[Path])
    tables: list[Path] = field(default_factory=list[Path])

    def files(self) -> list[Path]:
        """All files of the pair."""
        return [
            *self.speaker_videos,
            *self.speaker_sounds,
            *self.listener_videos,
            *self.listener_sounds,
            *self.tables,
        ]


def find_pairs(raw: Path, *, skip: Path | None = None) -> tuple[list[Pair], list[Path]]:
    """All pairs in `raw`, by id, and the tables of speakers, which nothing needs; `skip` is a folder left out."""
    pairs: dict[str, Pair] = {}
    unused: list[Path] = []
    for path in sorted(p for p in raw.rglob("*") if p.is_file()):
        relative = path.relative_to(raw)
        if any(part.startswith(".") for part in relative.parts) or (skip is not None and path.is_relative_to(skip)):
            continue
        suffix = path.suffix.lower()
        if suffix not in VIDEO_SUFFIXES | SOUND_SUFFIXES | TABLE_SUFFIXES:
            continue
        role, pair_id = role_and_id(relative)
        if suffix in TABLE_SUFFIXES and role == "speaker":
            unused.append(path)
            continue
        pair = pairs.setdefault(pair_id, Pair(pair_id))
        if suffix in TABLE_SUFFIXES:
            pair.tables.append(path)
        elif role == "listener":
            (pair.listener_videos if suffix in VIDEO_SUFFIXES else pair.listener_sounds).append(path)
        else:
            (pair.speaker_videos if suffix in VIDEO_SUFFIXES else pair.speaker_sounds).append(path)
    return [pairs[k] for k in sorted(pairs)], unused


def role_and_id(relative: Path) -> tuple[str | None, str]:
    """Role ("speaker", "listener" or None) and pair id of a file, from its path below RAW."""
    role, words = None, []
    for part in (*relative.parent.parts, relative.name.removesuffix(relative.suffix)):
        found = _ROLE.match(part)
        if found is None:
            words.append(_strip_tags(part))
            continue
        role = found["role"].lower()
        words.append(found["before"])
        words.append(_strip_tags(found["after"]).strip("_.- "))
    name = "_".join(w for w in words if w)
    return role, re.sub(r"[^\w.\-]+", "_", name).lstrip(".") or "session"


def _strip_tags(name: str) -> str:
    while found := _TAG.search(name):
        name = name[: found.start()]
    return name
