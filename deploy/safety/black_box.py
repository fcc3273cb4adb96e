"""The last sixty seconds of what was meant, sent and sensed, written down when something went wrong.

Recording costs a place in a ring. Writing happens in a thread of its own, two seconds after the fault, so that its
consequences are in it; the file takes its name only when it is whole; a full disk is said and does no harm. One file
per ten seconds at most, the newest twenty are kept.

One JSON object a line: the fault first, then ticks ({"t", "target", "state", "goal", "sent", "sensed"}, shares of
travel [C]) and events ({"t", "event", "text"}) by time.
"""

import datetime as dt
import json
import logging
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.motion.states import Moment, State, Verdict
from dyad.clock import Clock
from dyad.provenance import atomic_path

KEPT_S = 60.0
AFTER_S = 2.0
BETWEEN_S = 10.0
KEPT_FILES = 20
MOST_EVENTS = 2000
BURST, BURST_S = 5, 1.0
"""So many refused plans in so long are a fault."""
FOLLOWED: tuple[State, ...] = ("following", "holding")
GIVEN_UP: tuple[State, ...] = ("returning", "neutral")

_LOG = logging.getLogger("deploy")


@dataclass(frozen=True)
class Event:
    """Something that happened, in words."""

    now_s: float
    kind: str
    text: str


class BlackBox:
    """A ring of ticks and one of events, for a robot with named channels. All its calls return at once."""

    def __init__(self, folder: Path, clock: Clock, *, robot: str, channels: tuple[str, ...], rate_hz: float) -> None:
        self._folder, self._clock = folder, clock
        self._head = {"robot": robot, "channels": list(channels), "rate_hz": rate_hz}
        self._moments: deque[Moment] = deque(maxlen=int(KEPT_S * rate_hz))
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._refused: deque[float] = deque(maxlen=BURST)
        self._lock = threading.Lock()
        self._state = ""
        self._resting = False
        self._pending: tuple[float, float, str] | None = None
        self._written_s = -np.inf
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="black box", daemon=True)
        self.files: list[Path] = []

    def start(self) -> None:
        """Write by itself from here on."""
        self._thread.start()

    def watch(self, moment: Moment) -> None:
        """One tick of the controller.

        A lost robot is a fault, and so is a face that turns home because plans ceased to come, unless its loop had
        said that it would rest. A stop may be a fault or the end, its giver knows.
        """
        with self._lock:
            self._moments.append(moment)
        if moment.state != self._state:
            before, self._state = self._state, moment.state
            self.note("state", f"{before or 'none'} → {moment.state}", moment.now_s)
            if moment.state == "lost":
                self.fault("robot lost", moment.now_s)
            if before in FOLLOWED and moment.state in GIVEN_UP and not self._resting:
                self.fault("no plans: the loop fell silent", moment.now_s)

    def judge(self, seq: int, verdict: Verdict, now_s: float) -> None:
        """What became of a plan. Five refused ones within a second are a fault."""
        if verdict == "taken":
            self._resting = False
            return
        self.note("plan", f"{seq} {verdict}", now_s)
        if verdict == "refused" and self._state not in ("stopped", "released", "lost"):  # then it is the rule
            self._refused.append(now_s)
            if len(self._refused) == BURST and now_s - self._refused[0] <= BURST_S:
                self.fault("refused plans", now_s)

    def rest(self, why: str) -> None:
        """No plans will come until the next one, on purpose."""
        if not self._resting:
            self._resting = True
            self.note("rest", why)

    def note(self, kind: str, text: str, now_s: float | None = None) -> None:
        """Something worth knowing afterwards."""
        with self._lock:
            self._events.append(Event(self._clock.now_s() if now_s is None else now_s, kind, text))

    def fault(self, reason: str, now_s: float | None = None) -> None:
        """Something went wrong: write what is kept, soon."""
        at_s = self._clock.now_s() if now_s is None else now_s
        self.note("fault", reason, at_s)
        with self._lock:
            if self._pending is None:
                self._pending = (max(at_s + AFTER_S, self._written_s + BETWEEN_S), at_s, reason)

    def write_due(self, now_s: float) -> Path | None:
        """Write the pending fault if its time has come; the file, or None."""
        with self._lock:
            if self._pending is None or now_s < self._pending[0]:
                return None
            _, at_s, reason = self._pending
            self._pending, self._written_s = None, now_s
            moments, events = list(self._moments), list(self._events)
        try:
            return self._write(at_s, reason, moments, events)
        except OSError as error:
            _LOG.error("black box: %s: %s; the robot goes on without it", self._folder, error.strerror or error)
            return None

    def close(self) -> None:
        """Write what is pending, now; the robot is at home."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self.write_due(float("inf"))

    def _keep_writing(self) -> None:
        while not self._ending.wait(0.25):
            self.write_due(self._clock.now_s())

    def _write(self, at_s: float, reason: str, moments: list[Moment], events: list[Event]) -> Path:
        now = dt.datetime.now(dt.UTC)
        slug = re.sub(r"[^a-z0-9]+", "-", reason.lower()).strip("-")[:40]
        path = self._folder / f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{slug}.jsonl"
        head = {"fault": reason, "t": at_s, "time_utc": now.isoformat(timespec="milliseconds"), **self._head}
        with atomic_path(path) as part, part.open("w", encoding="utf8") as file:
            file.write(json.dumps(head, ensure_ascii=False) + "\n")
            for row in _rows(moments, events, at_s):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.files.append(path)
        _LOG.warning("black box: %s", path)
        for old in sorted(self._folder.glob("*.jsonl"))[:-KEPT_FILES]:
            old.unlink(missing_ok=True)
        return path


def _rows(moments: list[Moment], events: list[Event], at_s: float) -> Iterator[dict[str, Any]]:
    """Ticks and events by time, from a minute before the fault."""
    rows: list[tuple[float, dict[str, Any]]] = [(m.now_s, _tick(m)) for m in moments]
    rows += [(e.now_s, {"t": _short(e.now_s), "event": e.kind, "text": e.text}) for e in events]
    return (row for when_s, row in sorted(rows, key=lambda r: r[0]) if when_s >= at_s - KEPT_S)


def _tick(moment: Moment) -> dict[str, Any]:
    sensed = None if moment.sensed is None else moment.sensed.shares
    shares = {k: None if x is None else np.round(x, 4).tolist() for k, x in _poses(moment, sensed)}
    return {"t": _short(moment.now_s), "target": _short(moment.target_time_s), "state": moment.state, **shares}


def _poses(moment: Moment, sensed: Any) -> tuple[tuple[str, Any], ...]:
    return ("goal", moment.goal), ("sent", moment.sent), ("sensed", sensed)


def _short(seconds: float) -> float:
    return round(seconds, 4)
