"""A session keeps its contract in memory and through the dataset on disk."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dyad.action_units import REACT15, SEED17
from dyad.layouts import processed
from dyad.session import Session

COLUMNS = [
    "id",
    "speaker_video_path",
    "speaker_audio_path",
    "listener_video_path",
    "listener_audio_path",
    "listener_au_names",
    "listener_au_prob",
    "listener_au_act",
    "listener_frame_idx",
    "fps",
    "duration",
    "n_frames",
]


def session(root: Path, name: str = "s01", frames: int = 90, seed: int = 0) -> Session:
    """AU18 was never annotated; AU12 is unknown in the first ten frames."""
    rng = np.random.default_rng(seed)
    prob = rng.random((frames, 17), dtype=np.float32)
    act = (prob > 0.5).astype(np.float32)
    for values in (prob, act):
        values[:, SEED17.index("AU18")] = np.nan
        values[:10, SEED17.index("AU12")] = np.nan
    return Session(
        id=name,
        speaker_video_path=root / "media" / f"{name}.mp4",
        speaker_audio_path=root / "media" / f"{name}.wav",
        listener_video_path=None,
        listener_audio_path=None,
        au_names=SEED17.units,
        prob=prob,
        act=act,
        fps=30.0,
        duration_s=frames / 30,
        n_frames=frames,
    )


def test_a_session_comes_back_from_disk_as_it_was_written(tmp_path: Path) -> None:
    written = [session(tmp_path, f"s{i}", 60 + i, i) for i in range(3)]
    processed.write(tmp_path, "train", written)
    for old, new in zip(written, processed.load(tmp_path, "train"), strict=True):
        np.testing.assert_array_equal(new.prob, old.prob)
        np.testing.assert_array_equal(new.act, old.act)
        assert dataclasses.replace(new, prob=old.prob, act=old.act) == old


def test_the_table_on_disk_has_exactly_the_promised_columns(tmp_path: Path) -> None:
    import datasets

    processed.write(tmp_path, "val", [session(tmp_path)])
    row = datasets.load_from_disk(str(tmp_path / "processed" / "val"))[0]
    assert list(row) == COLUMNS
    assert row["listener_au_prob"]["AU18"] is None
    assert row["listener_au_act"]["AU12"][:11] == [None] * 10 + [row["listener_au_act"]["AU12"][10]]
    assert len(row["listener_au_prob"]["AU1"]) == row["n_frames"] == len(row["listener_frame_idx"])
    assert row["speaker_video_path"] == "media/s01.mp4"


def test_a_dataset_may_be_moved_because_its_paths_are_relative(tmp_path: Path) -> None:
    processed.write(tmp_path / "here", "train", [session(tmp_path / "here")])
    (tmp_path / "here").rename(tmp_path / "there")
    (moved,) = processed.load(tmp_path / "there" / "processed", "train")
    assert moved.speaker_video_path == tmp_path / "there" / "media" / "s01.mp4"


def test_another_unit_set_is_filled_by_name_and_masked_where_absent(tmp_path: Path) -> None:
    written = session(tmp_path)
    processed.write(tmp_path, "train", [written])
    (read,) = processed.load(tmp_path, "train", au_names=REACT15.units)
    assert np.isnan(read.prob[:, REACT15.index("AU24")]).all()
    np.testing.assert_array_equal(read.prob[:, REACT15.index("AU26")], written.prob[:, SEED17.index("AU26")])


def test_a_missing_split_says_which_command_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"val: no dataset there; make one with python -m dyad\.prepare RAW"):
        processed.load(tmp_path, "val")


def test_an_empty_split_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a split needs at least one"):
        processed.write(tmp_path, "train", [])
    assert not (tmp_path / "processed").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_frames": 91}, r"session s01: prob has shape \(90, 17\), wanted \(91, 17\)"),
        ({"fps": 25.0}, "annotated at 25 frames per second, wanted 30"),
        ({"prob": (3, "AU4", 1.5)}, "prob of AU4 at frame 3 is 1.5, wanted a value in"),
        ({"act": (4, "AU6", np.inf)}, "act of AU6 at frame 4 is inf"),
        ({"prob": (5, "AU9", -0.1)}, "prob of AU9 at frame 5 is -0.1"),
    ],
)
def test_a_broken_contract_is_named_by_session_unit_and_frame(tmp_path: Path, change: dict, said: str) -> None:
    good = session(tmp_path)
    good.validate()
    for name in {"prob", "act"} & set(change):
        t, unit, value = change[name]
        values = getattr(good, name).copy()
        values[t, SEED17.index(unit)] = value
        change = {name: values}
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(good, **change).validate()
