"""What happened in a session, in words: descriptions and the speaker's emotion with their times.

    STORE/events/events.json       who said it and how it was asked: model, prompts, window, hop, emotions
    STORE/events/<session>.jsonl   one event a line, in order of time; events may overlap, as windows do

Kept in a folder of their own inside the soft-label store: text beside numbers. Every file is written beside and
renamed, and its bytes depend on its content alone, so that an interrupted run and a straight one give the same files.
Times are half-open spans of 30 Hz frames. Source: seed 002 (seven emotions with their probabilities), seed 004
(descriptions and emotions in order of time, from which a story is told).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dyad.clock import FPS
from dyad.provenance import atomic_path, read_json, write_json

KIND = "events"
FOLDER = "events"
EMOTIONS = ("neutral", "happy", "sad", "surprised", "afraid", "disgusted", "angry")
"""Seed 002's seven (those of MELD, and of FER2013, seed 003), in words that a person is said to be."""
_TOLERANCE = 1e-4
_TYPES = {"start_frame": int, "end_frame": int, "text": str, "emotion": str, "emotion_probs": dict}
_MAKE = "python -m teacher.label --describe"


@dataclass(frozen=True)
class Event:
    """One stretch of a session in words."""

    start_frame: int
    """First frame."""
    end_frame: int
    """Frame after the last."""
    text: str
    """One line; empty where the model said nothing."""
    emotion: str
    """The most probable one."""
    emotion_probs: Mapping[str, float]
    """Probability of each emotion of the store; they sum to 1."""


def covering(events: Iterable[Event], frame: int) -> list[Event]:
    """The events that frame `frame` belongs to, in order; several where windows overlap."""
    return [e for e in events if e.start_frame <= frame < e.end_frame]


class EventStore:
    """The events of a soft-label store's sessions; made by `teacher.label --describe`."""

    def __init__(self, folder: Path, contract: dict[str, Any]) -> None:
        self.folder = folder
        self.contract = contract

    @classmethod
    def create(
        cls, root: Path | str, *, asked: Mapping[str, Any], emotions: Sequence[str], run: Mapping[str, Any]
    ) -> "EventStore":
        """Begin the events of the store at `root`, or go on with them.

        `asked` is who was asked and how (model, prompts, window, hop); raises ValueError naming the key that differs
        from how they were begun. `run` is the run card, which may differ.
        """
        folder = Path(root) / FOLDER
        contract = {"kind": KIND, "fps": FPS, "emotions": list(emotions), **asked}
        contract = json.loads(json.dumps(contract | {"run": dict(run)}))
        if not (folder / "events.json").is_file():
            write_json(folder / "events.json", contract)
            return cls(folder, contract)
        store = cls.open(root)
        for key in sorted((contract.keys() | store.contract.keys()) - {"run"}):
            held, wanted = store.contract.get(key), contract.get(key)
            if held != wanted:
                raise ValueError(
                    f"{folder}: was begun with {key} = {held!r}, but this run has {wanted!r}; "
                    "give another --out or remove the folder"
                )
        return store

    @classmethod
    def open(cls, root: Path | str) -> "EventStore":
        """The events of the store at `root`; raises ValueError where there are none, or of another kind or rate."""
        folder = Path(root) / FOLDER
        if not (folder / "events.json").is_file():
            raise ValueError(f"{folder}: no events there (events.json is missing); make them with: {_MAKE}")
        contract = read_json(folder / "events.json")
        for key, wanted in (("kind", KIND), ("fps", FPS)):
            if contract.get(key) != wanted:
                raise ValueError(f"{folder}/events.json: {key} is {contract.get(key)!r}, wanted {wanted!r}")
        return cls(folder, contract)

    @property
    def emotions(self) -> tuple[str, ...]:
        """Names of the emotions."""
        return tuple(self.contract["emotions"])

    def path(self, session_id: str) -> Path:
        """File of a session, existing or not; raises ValueError on an id that would leave the folder."""
        if not session_id or any(c in session_id for c in "/\\\0") or session_id.startswith("."):
            raise ValueError(f"session id {session_id!r} cannot name a file; use letters, digits, '_', '-' and '.'")
        return self.folder / f"{session_id}.jsonl"

    def write(self, session_id: str, events: Sequence[Event]) -> None:
        """Write one session, all or nothing; what a reader would refuse is refused."""
        path = self.path(session_id)
        lines = [json.dumps(asdict(e), ensure_ascii=False) for e in events]
        self._parse(path, lines)
        with atomic_path(path) as part:
            part.write_bytes("".join(f"{line}\n" for line in lines).encode())

    def read(self, session_id: str) -> list[Event]:
        """A session's events in order; raises ValueError naming file and line of the first fault."""
        path = self.path(session_id)
        if not path.is_file():
            raise ValueError(f"{path}: no such session; make it with: {_MAKE}")
        try:
            content = path.read_bytes().decode()
            if not content.endswith("\n"):
                raise ValueError(f"{path}: ends within a line")
            return self._parse(path, content[:-1].split("\n"))
        except ValueError as error:
            named = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise ValueError(f"{named}; delete this file and run {_MAKE} again") from None

    def ids(self) -> list[str]:
        """Sessions that have events, sorted."""
        return sorted(p.stem for p in self.folder.glob("*.jsonl"))

    def __contains__(self, session_id: str) -> bool:
        return self.path(session_id).is_file()

    def remove(self, session_id: str) -> None:
        """Drop a session's events, so that the next run makes them again."""
        self.path(session_id).unlink(missing_ok=True)

    def broken(self) -> list[tuple[str, str]]:
        """(session, reason) of every damaged file; the others are unaffected."""
        found: list[tuple[str, str]] = []
        for session_id in self.ids():
            try:
                self.read(session_id)
            except ValueError as error:
                found.append((session_id, str(error)))
        return found

    def _parse(self, path: Path, lines: Sequence[str]) -> list[Event]:
        """Events of a file's lines, checked."""
        if not lines:
            raise ValueError(f"{path}: holds no events, wanted one at least")
        events: list[Event] = []
        for number, line in enumerate(lines, start=1):
            try:
                event = _event(line)
                _check(event, events[-1] if events else None, self.emotions)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            events.append(event)
        return events


def _event(line: str) -> Event:
    """One line's event; raises ValueError on keys or types that are not an event's."""
    content: object = json.loads(line)
    if not isinstance(content, dict) or set(content) != set(_TYPES):
        raise ValueError(f"wanted an object with the keys {', '.join(_TYPES)}, got {line[:80]!r}")
    for key, kind in _TYPES.items():
        if type(content[key]) is not kind:
            raise ValueError(f"{key} is {content[key]!r}, wanted {kind.__name__}")
    return Event(**content)


def _check(event: Event, before: Event | None, emotions: Sequence[str]) -> None:
    """Raise ValueError where an event's span, text or emotion is not to be believed."""
    span = f"[{event.start_frame}, {event.end_frame})"
    if not 0 <= event.start_frame < event.end_frame:
        raise ValueError(f"span {span} is empty or before the session's start")
    if before is not None and not (before.start_frame < event.start_frame and before.end_frame <= event.end_frame):
        raise ValueError(f"span {span} is not later than [{before.start_frame}, {before.end_frame}) before it")
    if len(event.text.splitlines()) > 1:
        raise ValueError(f"text has more than one line: {event.text!r}")
    if tuple(event.emotion_probs) != tuple(emotions):
        raise ValueError(
            f"probabilities are of {', '.join(event.emotion_probs) or 'nothing'}, wanted {', '.join(emotions)}"
        )
    probs = list(event.emotion_probs.values())
    if not all(type(p) in (int, float) and math.isfinite(p) and 0 <= p <= 1 for p in probs):
        raise ValueError(f"a probability is no number in [0, 1]: {probs}")
    if abs(math.fsum(probs) - 1) > _TOLERANCE:
        raise ValueError(f"probabilities sum to {math.fsum(probs):g}, wanted 1")
    if event.emotion not in emotions or event.emotion_probs[event.emotion] < max(probs):
        raise ValueError(f"emotion {event.emotion!r} is not the most probable of {dict(event.emotion_probs)}")
