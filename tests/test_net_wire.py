"""What travels to a controller: plans bit for bit, and nothing that is not a message of ours."""

import json
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.net import auth, wire
from deploy.net.connection import Connection
from deploy.net.wire import Message, WireError, decode, encode, from_plan, to_plan
from deploy.plan import AUPlan

ETHERNET_BYTES = 1448
"""What one segment of TCP carries over Ethernet."""


def plan(rows: int = 9, **changes: Any) -> AUPlan:
    rng = np.random.default_rng(rows)
    au, confidence = rng.random((2, rows, 17), dtype=np.float32)
    values = {
        "seq": 7,
        "captured_at_s": 1234.56789012,
        "target_times_s": 1234.56789012 + np.arange(rows) / 30,
        "au": au,
        "confidence": confidence,
        "flags": ("no_face",),
    }
    return AUPlan(**(values | changes))


@pytest.mark.parametrize("rows", [1, 9, wire.MOST_ROWS])
def test_a_plan_arrives_bit_for_bit(rows: int) -> None:
    sent = plan(rows)
    came = to_plan(decode(encode(from_plan(sent))))
    assert (came.seq, came.captured_at_s, came.flags) == (sent.seq, sent.captured_at_s, sent.flags)
    for name in ("target_times_s", "au", "confidence"):
        np.testing.assert_array_equal(getattr(came, name), getattr(sent, name))
        assert getattr(came, name).dtype == getattr(sent, name).dtype


def test_a_sealed_plan_of_nine_horizons_fits_one_ethernet_segment() -> None:
    long = plan(seq=10**9, captured_at_s=1e7 + 0.123456789, target_times_s=1e7 + np.arange(9) / 30)
    assert 4 + len(encode(from_plan(long))) + auth.TAG_BYTES <= ETHERNET_BYTES


def test_the_longest_reason_of_a_stop_fits_a_line_whatever_it_is_written_in() -> None:
    why = wire.sentence("stop", "😀" * 1000).fields["why"]
    times = {"asked_s": 1.0, "received_s": 1.0, "answered_s": 1.0}
    told = Message("pong", {**times, "status": {"stop_reason": f"asked by a loop: {why}"}})
    assert decode(encode(told)) == told


def test_numbers_that_are_none_travel_for_the_controller_to_refuse() -> None:
    au = plan().au.copy()
    au[3, 4] = np.nan
    assert np.isnan(to_plan(decode(encode(from_plan(plan(au=au))))).au[3, 4])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name_and_break_nothing(content: bytes) -> None:
    with pytest.raises(WireError):
        decode(content)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_message_damaged_anywhere_is_refused_or_still_one_of_ours(data: st.DataObject) -> None:
    content = bytearray(encode(from_plan(plan())))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode(bytes(content))
        came = to_plan(message) if message.kind == "plan" else None
    except WireError:
        return
    assert came is None or (np.isfinite(came.target_times_s).all() and came.au.shape == came.confidence.shape)


GOOD = {
    "hello": {"version": 1, "nonce": "ab", "proof": "cd", "sender": "ef"},
    "plan": {"seq": 0, "captured_at_s": 1.0, "rows": 1, "flags": []},
    "ping": {"asked_s": 1.5},
    "stop": {"why": "smoke"},
}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("hello", {"version": True}),
        ("hello", {"version": -1}),
        ("hello", {"nonce": "xyz"}),
        ("hello", {"proof": "a" * 65}),
        ("hello", {"sender": 5}),
        ("hello", {"more": 1}),
        ("plan", {"seq": 1.5}),
        ("plan", {"seq": 2**53}),
        ("plan", {"captured_at_s": "1"}),
        ("plan", {"captured_at_s": 1e300}),
        ("plan", {"rows": None}),
        ("plan", {"flags": ["a b"]}),
        ("plan", {"flags": [["x"]]}),
        ("plan", {"flags": ["x"] * 9}),
        ("ping", {"asked_s": None}),
        ("stop", {"why": "x" * 301}),
        ("stop", {"why": "\x1b[2J"}),
        ("dance", {}),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_refused(kind: str, change: dict[str, Any]) -> None:
    line = json.dumps({"kind": kind, **GOOD.get(kind, {}), **change})
    with pytest.raises(WireError):
        decode(line.encode() + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"ping","asked_s":NaN}',
        b'{"kind":"ping","asked_s":Infinity}',
        b'{"kind":"ping","asked_s":1e999}',
        b'{"kind":"ping","asked_s":' + b"9" * 4000 + b"}",
        b"[" * 4000,
        b'{"kind":["ping"]}',
        b'{"kind":"ping","asked_s":1' + b" " * 5000 + b"}",
        b"\xff\xfe",
        b"null",
    ],
)
def test_json_that_would_trip_a_careless_reader_is_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        decode(line + b"\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_times_s": 1234.5 + np.array([0, 1, 1, 2.0, 3, 4, 5, 6, 7]) / 30}, "rising"),
        ({"target_times_s": np.full(9, np.nan)}, "rising"),
        ({"target_times_s": 9999.0 + np.arange(9)}, "within 5.0 s of the capture"),
        ({"au": np.zeros((9, 16), np.float32)}, "bytes of arrays"),
        ({"confidence": np.zeros((2, 17), np.float32)}, "bytes of arrays"),
    ],
)
def test_a_plan_of_absurd_times_or_shapes_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WireError, match=words):
        to_plan(decode(encode(from_plan(plan(**changes)))))


def pair() -> tuple[Connection, Connection, socket.socket]:
    """Two ends, and the raw socket of the first."""
    server = socket.create_server(("127.0.0.1", 0))
    raw = socket.create_connection(server.getsockname())
    other, _ = server.accept()
    server.close()
    return Connection(raw), Connection(other), raw


def everything(connection: Connection, count: int) -> list[Message]:
    """The next `count` messages; TCP may cut them anywhere."""
    came: list[Message] = []
    while len(came) < count:
        came += connection.receive()
    return came


def test_messages_cut_into_single_bytes_arrive_whole_and_in_order() -> None:
    near, far, raw = pair()
    contents = [encode(Message("ping", {"asked_s": float(k)})) for k in range(3)]
    for byte in b"".join(struct.pack(">I", len(c)) + c for c in contents):
        raw.send(bytes([byte]))
    assert [m.fields["asked_s"] for m in everything(far, 3)] == [0.0, 1.0, 2.0]
    near.close()
    far.close()


def test_a_message_larger_than_64_kb_is_refused_before_it_is_read() -> None:
    near, far, raw = pair()
    raw.send(struct.pack(">I", wire.LARGEST_BYTES + 1))
    with pytest.raises(WireError, match="65537 bytes"):
        everything(far, 1)
    near.close()
    far.close()


def test_what_a_reader_does_not_take_waits_and_is_not_lost() -> None:
    near, far, raw = pair()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sent = 0
    while not near.waiting_bytes:
        near.send(from_plan(plan(32, seq=sent)))
        sent += 1
    came: list[Message] = []
    while len(came) < sent:
        came += far.receive()
        near.flush()
    assert [m.fields["seq"] for m in came] == list(range(sent))
    near.close()
    far.close()


def sealed_pair() -> tuple[Connection, Connection, socket.socket]:
    near, far, raw = pair()
    near.seal(auth.Seal("t" * 16, "loop", "aa", "bb"), auth.Seal("t" * 16, "controller", "aa", "bb"))
    far.seal(auth.Seal("t" * 16, "controller", "aa", "bb"), auth.Seal("t" * 16, "loop", "aa", "bb"))
    return near, far, raw


def test_sealed_messages_pass_and_a_changed_repeated_or_foreign_one_does_not() -> None:
    near, far, raw = sealed_pair()
    near.send(Message("bye"))
    assert everything(far, 1) == [Message("bye")]
    content = encode(Message("bye"))
    for tag in (b"", b"\0" * 16, auth.Seal("t" * 16, "loop", "aa", "bb").close(content)[-16:]):
        raw.send(struct.pack(">I", len(content + tag)) + content + tag)
        with pytest.raises(WireError, match=r"seal|changed, inserted or repeated"):
            everything(far, 1)
    near.close()
    far.close()


def test_only_the_same_token_and_the_same_numbers_prove_anything() -> None:
    shown = auth.proof("t" * 16, "loop", "aa", "bb")
    assert auth.is_proof(shown, "t" * 16, "loop", "aa", "bb")
    for token, who, one, two in [
        ("u" * 16, "loop", "aa", "bb"),
        (None, "loop", "aa", "bb"),
        ("t" * 16, "controller", "aa", "bb"),
        ("t" * 16, "loop", "ab", "bb"),
        ("t" * 16, "loop", "aa", "ba"),
    ]:
        assert not auth.is_proof(shown, token, who, one, two)
    assert auth.nonce() != auth.nonce()


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(auth.VARIABLE, raising=False)
    assert auth.read_token(None) is None
    monkeypatch.setenv(auth.VARIABLE, "from-the-environment")
    assert auth.read_token(None) == "from-the-environment"
    (tmp_path / "token").write_text("from-the-file-itself\n", encoding="utf8")
    assert auth.read_token(tmp_path / "token") == "from-the-file-itself"


@pytest.mark.parametrize("content", [b"", b"short\n", b"two words of enough length", b"\xff" * 20, None])
def test_a_bad_token_file_is_named_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"token.*make one with: python -c"):
        auth.read_token(path)
