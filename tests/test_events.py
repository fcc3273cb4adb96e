"""Events in words: whole files only, every fault by file and line, and numbers beside them undisturbed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dyad.action_units import SEED17
from dyad.events import EMOTIONS, Event, EventStore, covering
from dyad.soft_labels import SoftLabelStore

ASKED = {"model": "m", "prompts": "p1", "window": {"frames": 60}, "hop_frames": 60}


def create(root: Path, **changes: Any) -> EventStore:
    return EventStore.create(root, **{"asked": ASKED, "emotions": EMOTIONS, "run": {}, **changes})


def events(count: int = 3, seed: int = 0) -> list[Event]:
    """Overlapping events with probabilities that sum to 1."""
    rng = np.random.default_rng(seed)
    made: list[Event] = []
    for i in range(count):
        probs = dict(zip(EMOTIONS, rng.dirichlet(np.ones(7)).tolist(), strict=True))
        text = f"Says “{i}”, 点头."
        made.append(Event(40 * i, 40 * i + 60, text, max(probs, key=lambda name: probs[name]), probs))
    return made


def rewrite(store: EventStore, line: int, **changes: Any) -> None:
    """Change keys of one line (from 1) of session s01; a value of ... drops the key."""
    lines = store.path("s01").read_text(encoding="utf8").splitlines()
    content = {k: v for k, v in (json.loads(lines[line - 1]) | changes).items() if v is not ...}
    lines[line - 1] = json.dumps(content)
    store.path("s01").write_text("".join(f"{text}\n" for text in lines), encoding="utf8")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    create(tmp_path).write("s01", events())
    store = EventStore.open(tmp_path)
    assert store.read("s01") == events()
    assert store.emotions == EMOTIONS
    assert store.ids() == ["s01"]
    assert store.broken() == []


def test_an_interrupted_and_resumed_run_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("straight", "resumed"):
        create(tmp_path / name).write("s01", events(seed=1))
    (tmp_path / "resumed" / "events" / "s02.jsonl.part").write_bytes(b"half")
    assert "s02" not in EventStore.open(tmp_path / "resumed")
    for name in ("straight", "resumed"):
        create(tmp_path / name).write("s02", events(seed=2))
    first, second = (
        {p.name: p.read_bytes() for p in (tmp_path / name / "events").iterdir()} for name in ("straight", "resumed")
    )
    assert first == second


def test_the_soft_labels_beside_them_do_not_notice(tmp_path: Path) -> None:
    labels = SoftLabelStore.create(tmp_path, au_names=SEED17.units, teacher_hash="t", run={})
    numbers = np.full((9, 17), 0.5, np.float32)
    labels.write("s01", numbers, numbers, numbers)
    create(tmp_path).write("s02", events())
    assert labels.ids() == ["s01"]
    assert labels.broken() == []
    assert SoftLabelStore.open(tmp_path, au_names=SEED17.units).ids() == ["s01"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"asked": ASKED | {"model": "n"}}, "model = 'm', but this run has 'n'"),
        ({"asked": ASKED | {"window": {"frames": 90}}}, "window = {'frames': 60}, but this run has {'frames': 90}"),
        ({"asked": ASKED | {"limit": 3}}, "limit = None, but this run has 3"),
        ({"asked": {k: ASKED[k] for k in ("model", "window", "hop_frames")}}, "prompts = 'p1', but this run has None"),
        ({"emotions": EMOTIONS[::-1]}, "emotions = "),
    ],
)
def test_going_on_otherwise_than_begun_is_refused_by_the_differing_key(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    create(tmp_path).write("s01", events())
    assert create(tmp_path, run={"time": "later"}).ids() == ["s01"]
    with pytest.raises(ValueError, match="was begun with " + key.replace("{", r"\{")):
        create(tmp_path, **changes)


def test_events_that_are_not_there_are_answered_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"events\.json is missing\); make them with: python -m teacher\.label --desc"):
        EventStore.open(tmp_path)
    with pytest.raises(ValueError, match=r"s09\.jsonl: no such session; make it with: python -m teacher\.label --desc"):
        create(tmp_path).read("s09")


@pytest.mark.parametrize(("key", "value"), [("kind", "soft-labels"), ("fps", 25)])
def test_a_folder_of_another_kind_or_rate_is_refused(tmp_path: Path, key: str, value: object) -> None:
    store = create(tmp_path)
    (store.folder / "events.json").write_text(json.dumps(store.contract | {key: value}))
    with pytest.raises(ValueError, match=f"{key} is {value!r}, wanted"):
        EventStore.open(tmp_path)


UNSURE = dict.fromkeys(EMOTIONS, 0.1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start_frame": 0}, r"span \[0, 100\) is not later than \[0, 60\) before it"),
        ({"end_frame": 59}, r"span \[40, 59\) is not later"),
        ({"end_frame": 40}, r"span \[40, 40\) is empty"),
        ({"start_frame": -1}, r"span \[-1, 100\) is empty or before"),
        ({"start_frame": 40.0}, "start_frame is 40.0, wanted int"),
        ({"start_frame": True}, "start_frame is True, wanted int"),
        ({"text": None}, "text is None, wanted str"),
        ({"text": "two\nlines"}, "more than one line"),
        ({"text": ...}, "wanted an object with the keys start_frame, end_frame, text, emotion, emotion_probs"),
        ({"mood": "fine"}, "wanted an object with the keys"),
        ({"emotion": "bored"}, "emotion 'bored' is not the most probable"),
        ({"emotion_probs": UNSURE | {"happy": 0.4}, "emotion": "sad"}, "emotion 'sad' is not the most probable"),
        ({"emotion_probs": UNSURE | {"bored": 0.3}}, "probabilities are of neutral, .*, bored, wanted neutral"),
        ({"emotion_probs": {}}, "probabilities are of nothing, wanted neutral"),
        ({"emotion_probs": UNSURE}, "probabilities sum to 0.7, wanted 1"),
        ({"emotion_probs": UNSURE | {"happy": float("nan")}}, "no number in"),
        ({"emotion_probs": UNSURE | {"happy": float("inf")}}, "no number in"),
        ({"emotion_probs": UNSURE | {"happy": -0.1}}, "no number in"),
        ({"emotion_probs": UNSURE | {"happy": "0.4"}}, "no number in"),
    ],
)
def test_a_line_that_is_not_to_be_believed_is_named_with_its_file(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    store = create(tmp_path)
    store.write("s01", events())
    store.write("s02", events(seed=1))
    rewrite(store, 2, **changes)
    with pytest.raises(ValueError, match=rf"s01\.jsonl, line 2: .*{said}.*; delete this file and run python") as caught:
        store.read("s01")
    assert store.broken() == [("s01", str(caught.value))]
    store.remove("s01")
    assert store.broken() == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "ends within a line"),
        (b"\n", "line 1: Expecting value"),
        (b"[1, 2]\n", "line 1: wanted an object"),
        (b"\xff\xfe\n", "can't decode"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    store = create(tmp_path)
    store.path("s01").write_bytes(content)
    with pytest.raises(ValueError, match=rf"s01\.jsonl.*{said}.*; delete this file"):
        store.read("s01")


def test_a_file_cut_anywhere_but_between_lines_is_named(tmp_path: Path) -> None:
    store = create(tmp_path)
    store.write("s01", events())
    whole = store.path("s01").read_bytes()
    for size in np.random.default_rng(0).integers(1, len(whole), 40).tolist():
        if whole[size - 1 : size] != b"\n":
            store.path("s01").write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"s01\.jsonl.*delete this file"):
                store.read("s01")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([], "holds no events"),
        ([replace(events()[0], text="two\nlines")], "line 1: text has more than one line"),
        ([replace(events()[0], emotion_probs=UNSURE | {"sad": float("nan")})], "line 1: a probability is no number"),
        (events()[::-1], "line 2: span"),
    ],
)
def test_what_a_reader_would_refuse_is_not_written(tmp_path: Path, bad: list[Event], said: str) -> None:
    store = create(tmp_path)
    with pytest.raises(ValueError, match=said):
        store.write("s01", bad)
    assert [p.name for p in store.folder.iterdir()] == ["events.json"]


@pytest.mark.parametrize("name", ["", "../s01", "a/b", ".hidden"])
def test_a_session_id_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        create(tmp_path).write(name, events())


def test_the_events_that_cover_a_frame_are_those_whose_span_holds_it() -> None:
    made = events(5)
    for frame in range(-1, 260):
        assert covering(made, frame) == [e for e in made if frame in range(e.start_frame, e.end_frame)]
