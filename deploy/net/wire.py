"""What travels between the loop and a controller: one JSON line, and behind it the plan's arrays as they lie in memory.

On the wire each message is its length (4 bytes, big-endian, at most 64 kB) and its content. The line says the kind and
its fields, all of which are checked: nothing else is understood, and nothing that runs is ever carried. Arrays are
little-endian: target times [H] float64, intensities and confidence [H, A] float32 each. A plan of nine horizons is
1.4 kB, one Ethernet segment, and takes microseconds either way; as JSON alone it would be three to five segments, and
where 2 % of the segments are lost, up to 10 % of the plans would be (`python -m benchmarks.network` measures both).

Shapes: H horizons, A = 17 action units (SEED17).
"""

import json
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.plan import AUPlan
from dyad.action_units import SEED17

VERSION = 2
LARGEST_BYTES = 65536
LONGEST_LINE_BYTES = 4096
MOST_ROWS = 32
"""Horizons of one plan."""
LONGEST_REACH_S = 5.0
"""Furthest that a target time may lie from the capture time."""
LONGEST_TEXT = 300
UNITS = len(SEED17.units)
_HEX = frozenset(string.hexdigits)
_WORD = frozenset(string.ascii_letters + string.digits + "_-.")


class WireError(ValueError):
    """The other end does not speak this protocol, or not correctly; the connection is closed."""


@dataclass(frozen=True)
class Message:
    """One message: its kind, its checked fields, and the arrays behind them."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    tail: bytes = b""


def _time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e10  # NaN is not, either


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 64 and set(value) <= _HEX


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def _words(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 8 and all(isinstance(w, str) and _is_word(w) for w in value)


def _is_word(text: str) -> bool:
    return 0 < len(text) <= 32 and set(text) <= _WORD


def _table(value: Any) -> bool:
    return isinstance(value, dict)


FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    # From the controller: who are you; come in; you may not; here is the time, and how the robot is.
    "challenge": {"version": _count, "nonce": _hex, "token": _flag},
    "welcome": {"drives": _flag, "proof": _hex, "robot": _text},
    "refused": {"why": _text},
    "pong": {"asked_s": _time, "received_s": _time, "answered_s": _time, "status": _table},
    # From the loop: who I am; the next quarter second; what time is it; stop the robot; I shall be silent on purpose;
    # something went wrong here; I leave.
    "hello": {"version": _count, "nonce": _hex, "proof": _hex, "sender": _hex},
    "plan": {"seq": _count, "captured_at_s": _time, "rows": _count, "flags": _words},
    "ping": {"asked_s": _time},
    "stop": {"why": _text},
    "rest": {"why": _text},
    "fault": {"why": _text},
    "bye": {},
}
"""Every kind of message and a check for every field; a message must have just these."""


def sentence(kind: str, why: str) -> Message:
    """A message that only says why, as far as it can be said: a stop may not fail for a strange letter."""
    return Message(kind, {"why": "".join(c if c.isprintable() else " " for c in why)[:LONGEST_TEXT]})


def encode(message: Message) -> bytes:
    """Content of one message, without its length; ValueError when it would not be understood."""
    _check(message)
    fields = {"kind": message.kind, **message.fields}
    line = json.dumps(fields, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return line.encode() + b"\n" + message.tail


def decode(content: bytes) -> Message:
    """The message in `content`; WireError for whatever is not one."""
    line, newline, tail = content.partition(b"\n")
    if not newline or len(line) > LONGEST_LINE_BYTES:
        raise WireError(f"wanted a line of at most {LONGEST_LINE_BYTES} bytes, got {len(line)}")
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise WireError("the line is not JSON") from None
    kind = fields.pop("kind", None) if isinstance(fields, dict) else None
    if not isinstance(kind, str):
        raise WireError("the line names no kind of message")
    message = Message(kind, fields, tail)
    _check(message)
    return message


def _check(message: Message) -> None:
    checks = FIELDS.get(message.kind)
    if checks is None:
        raise WireError(f"unknown kind of message {message.kind[:32]!r}")
    if set(message.fields) != set(checks):
        raise WireError(f"{message.kind} wants the fields {', '.join(checks) or 'none'}")
    for name, check in checks.items():
        if not check(message.fields[name]):
            raise WireError(f"{message.kind}: {name} is not what it should be: {str(message.fields[name])[:40]!r}")
    if message.tail and message.kind != "plan":
        raise WireError(f"{message.kind} carries no arrays, got {len(message.tail)} bytes of them")


def from_plan(plan: AUPlan) -> Message:
    """A plan as a message."""
    arrays = (plan.target_times_s.astype("<f8"), plan.au.astype("<f4"), plan.confidence.astype("<f4"))
    fields = {
        "seq": plan.seq,
        "captured_at_s": float(plan.captured_at_s),
        "rows": len(plan.au),
        "flags": list(plan.flags),
    }
    return Message("plan", fields, b"".join(a.tobytes() for a in arrays))


def to_plan(message: Message) -> AUPlan:
    """The plan in a message. Its times are checked here; NaN among its intensities is for the controller to refuse."""
    assert message.kind == "plan"
    seq, captured_at_s, rows, flags = (message.fields[k] for k in ("seq", "captured_at_s", "rows", "flags"))
    if not 1 <= rows <= MOST_ROWS:
        raise WireError(f"a plan has 1 to {MOST_ROWS} rows, got {rows}")
    wanted = rows * (8 + 2 * 4 * UNITS)
    if len(message.tail) != wanted:
        raise WireError(f"a plan of {rows} rows has {wanted} bytes of arrays, got {len(message.tail)}")
    times_s = np.frombuffer(message.tail, "<f8", rows)
    if not (np.isfinite(times_s).all() and (np.diff(times_s) > 0).all()):
        raise WireError("target times must be finite and rising")
    if np.abs(times_s - captured_at_s).max() > LONGEST_REACH_S:
        raise WireError(f"target times must lie within {LONGEST_REACH_S} s of the capture")
    au, confidence = np.frombuffer(message.tail, "<f4", 2 * rows * UNITS, 8 * rows).reshape(2, rows, UNITS)
    return AUPlan(seq, float(captured_at_s), times_s, au, confidence, tuple(flags))
