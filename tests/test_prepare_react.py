"""`dyad.prepare --layout` makes the product's dataset of a challenge's folders, whole where they are whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import react_trees as trees
from test_layouts_react import CLIPS, write_matrix

from dyad import media
from dyad.action_units import SEED17
from dyad.layouts import processed, react2024, react2025, recordings
from dyad.prepare.__main__ import main


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.react2024(tmp_path_factory.mktemp("react") / "data", media_too=True)


@pytest.fixture(scope="module")
def mars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.react2025(tmp_path_factory.mktemp("mars") / "data", media_too=True)


def prepare(root: Path, out: Path, layout: str, *flags: str) -> tuple[int, dict]:
    status = main(["--layout", layout, str(root), str(out), "--workers", "1", *flags])
    return status, json.loads((out / "report.json").read_text(encoding="utf8"))


def test_react2024_becomes_a_dataset_in_both_directions(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy)
    write_matrix(copy, CLIPS)
    status, report = prepare(copy, tmp_path / "out", "react2024")
    assert status == 0
    assert (report["counts"]["train"], report["counts"]["val"]) == (2, 4)
    assert report["unused_units"] == {"AU24": 6}
    wanted = {s.id: s for split in ("train", "val") for s in react2024.sessions(tree, split)}
    read = [s for split in ("train", "val") for s in processed.load(tmp_path / "out", split)]
    for session in read:
        np.testing.assert_array_equal(session.act, wanted[session.id].act)
        np.testing.assert_array_equal(session.prob, wanted[session.id].prob)
        assert media.read_video(session.speaker_video_path).shape == (901, 32, 32, 3)
        sound = media.read_audio(session.speaker_audio_path)
        assert media.probe(session.speaker_audio_path).audio_rate_hz == 16000
        assert len(sound) == pytest.approx(30.04 * 16000, abs=32)
        assert np.abs(sound[4000:-4000]).max() == pytest.approx(0.3, abs=0.01)  # the mean of 0.4 and 0.2
    assert {s.listener_video_path for s in read} == {s.speaker_video_path for s in read}
    with np.load(tmp_path / "out" / "appropriate" / "val.npz") as kept:
        ids = [s.id for s in react2024.sessions(tree, "val")]
        assert list(kept["ids"]) == ids
        np.testing.assert_array_equal(kept["neighbours"], react2024.neighbours(copy, "val"))
    assert len(set(recordings.of(tmp_path / "out", read))) == 3, "both directions of a clip are of one recording"


def test_pictures_keep_their_order_and_their_time(tree: Path, tmp_path: Path) -> None:
    prepare(tree, tmp_path / "out", "react2024", "--no-mirrored")
    (session,) = processed.load(tmp_path / "out", "train")
    light = media.read_video(session.speaker_video_path).mean(axis=(1, 2, 3))
    wanted = [
        ((2 * t + 1) * 25 // 60 + 1) * 255 // 751 for t in range(901)
    ]  # picture n is written n * 255 // 751 light
    np.testing.assert_allclose(light, wanted, atol=4)


def test_the_speakers_own_units_are_kept_for_training(tree: Path, tmp_path: Path) -> None:
    prepare(tree, tmp_path / "out", "react2024")
    expert, novice = processed.load(tmp_path / "out", "train")
    own = processed.speaker_units(tmp_path / "out", expert.id, SEED17.units)
    np.testing.assert_array_equal(own, novice.prob)


def test_lost_files_cost_their_own_direction_only(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy)
    (copy / "train" / "Video_files" / trees.TRAIN[0][0] / "300.png").unlink()
    (copy / "val" / "Emotion" / f"{trees.VAL[0][1]}.csv").unlink()
    (copy / "val" / "Audio_files" / f"{trees.VAL[1][0]}.wav").unlink()
    status, report = prepare(copy, tmp_path / "out", "react2024")
    reasons = {r["id"]: r["reason"] for r in report["refused"]}
    assert status == 3
    assert "Expert_video/1: lacks 300.png among 750 pictures" in reasons["NoXI_010_2016-03-25_Paris_Expert_video_1"]
    assert "Novice_video/1.csv: no such file" in reasons["NoXI_005_2016-03-18_Paris_Expert_video_1"]
    assert "P25/2.wav: no such file" in reasons["RECOLA_group-1_P25_2"]
    taken = {s.id: s for split in ("train", "val") for s in processed.load(tmp_path / "out", split)}
    assert set(taken) == {
        "NoXI_010_2016-03-25_Paris_Novice_video_1",
        "NoXI_005_2016-03-18_Paris_Novice_video_1",
        "RECOLA_group-1_P26_2",
    }
    assert taken["RECOLA_group-1_P26_2"].listener_video_path is None
    shown = {p for s in taken.values() for p in (s.speaker_video_path, s.speaker_audio_path, s.listener_video_path)}
    shown |= {s.listener_audio_path for s in taken.values()}
    assert set((tmp_path / "out" / "media").iterdir()) == shown - {None}
    said = capsys.readouterr().out
    assert "6 pairs: 3 taken, 3 refused" in said
    assert "val: which reactions are appropriate is unknown" in said
    speakers = {p.stem for p in (tmp_path / "out" / "speaker_au").iterdir()}
    assert speakers == set(taken) - {"NoXI_005_2016-03-18_Paris_Novice_video_1"}
    notes = {e["id"]: e["notes"] for e in report["taken"]}["NoXI_005_2016-03-18_Paris_Novice_video_1"]
    assert notes[0].startswith("the speaker's own units are unknown: ")


def test_a_subject_in_two_splits_is_refused_before_anything_is_decoded(tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tree, copy, ignore=shutil.ignore_patterns("*.png"))
    trees.write_lists(copy, {"train": [trees.VAL[1]]})
    with pytest.raises(ValueError, match="subject RECOLA P25 is in both train"):
        main(["--layout", "react2024", str(copy), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_mars_becomes_a_dataset_with_its_topics_as_appropriateness(mars: Path, tmp_path: Path) -> None:
    status, report = prepare(mars, tmp_path / "out", "react2025", "--min-seconds", "1")
    assert (status, report["counts"]["train"], report["counts"]["val"]) == (0, 4, 6)
    wanted = {s.id: s for split in ("train", "val") for s in react2025.sessions(mars, split)}
    for session in processed.load(tmp_path / "out", "val"):
        np.testing.assert_array_equal(session.act, wanted[session.id].act)
        assert len(media.read_video(session.speaker_video_path)) == session.n_frames
    with np.load(tmp_path / "out" / "appropriate" / "val.npz") as kept:
        assert kept["neighbours"].sum() == 10


def test_a_challenge_has_a_listener_for_every_speaker(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--layout", "react2024", "--speakers-only", str(tmp_path), str(tmp_path / "out")])
    assert "--speakers-only takes recordings" in capsys.readouterr().err
