"""Datasets of synthetic dyads: schema, determinism, splits, refusals."""

import sys
from pathlib import Path

import numpy as np
import pytest

from dyad.clock import FPS, samples_until
from dyad.config import run_main
from dyad.layouts import processed
from dyad.media import read_audio, read_video
from dyad.provenance import read_json, sha256_file
from dyad.synthetic import voice
from dyad.synthetic.__main__ import main

SECONDS = 2


def make(out: Path, *flags: str) -> Path:
    assert main(["--out", str(out), "--sessions", "2", "--seconds", str(SECONDS), "--voice", "formant", *flags]) == 0
    return out


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("dyads") / "one", "--seed", "3", "--workers", "1")


def hashes(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): sha256_file(p) for f in ("media", "truth") for p in sorted((root / f).iterdir())}


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(dataset: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "two", "--seed", "3", "--workers", "2")
    assert hashes(again) == hashes(dataset)
    for split in processed.SPLITS:
        for a, b in zip(processed.load(dataset, split), processed.load(again, split), strict=True):
            assert a.id == b.id
            np.testing.assert_array_equal(a.prob, b.prob)
            np.testing.assert_array_equal(a.act, b.act)


def test_another_seed_gives_another_speaker_and_listener(dataset: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", "--seed", "4", "--no-media")
    a, b = processed.load(dataset, "train")[0], processed.load(other, "train")[0]
    assert not np.array_equal(a.prob, b.prob)


def test_every_session_follows_the_schema_and_points_at_its_media(dataset: Path) -> None:
    sessions = [s for split in processed.SPLITS for s in processed.load(dataset, split)]
    assert [s.id for s in sessions] == ["dyad_3_00000", "dyad_3_00001"]
    for session in sessions:
        session.validate()
        assert session.n_frames == SECONDS * FPS
        assert session.speaker_video_path.is_file()
        assert session.speaker_audio_path.is_file()
        assert np.isin(session.act, (0, 1)).all()


def test_pictures_and_sound_last_exactly_as_long_as_the_labels(dataset: Path) -> None:
    session = processed.load(dataset, "val")[0]
    pictures = read_video(session.speaker_video_path)
    sound = read_audio(session.speaker_audio_path)
    assert pictures.shape == (session.n_frames, 224, 224, 3)
    assert len(sound) == samples_until(session.n_frames)


def test_the_truth_names_the_drawn_units_and_the_listeners_movements(dataset: Path) -> None:
    with np.load(dataset / "truth" / "dyad_3_00000.npz", allow_pickle=False) as truth:
        assert truth["speaker_au"].shape == (SECONDS * FPS, len(truth["speaker_au_names"]))
        assert set(truth["events"].dtype.names) == {"kind", "onset", "known_at", "hold_frames", "amplitude"}
        assert truth["movements"].shape[1] == 7
        assert np.isfinite(truth["persona"]).all()


def test_validation_shares_no_speaker_and_no_listener_with_training(dataset: Path) -> None:
    train, val = (processed.load(dataset, split)[0] for split in processed.SPLITS)
    looks = [read_video(s.speaker_video_path, max_frames=1)[0].astype(float) for s in (train, val)]
    assert np.abs(looks[0] - looks[1]).mean() > 5
    people = [np.load(dataset / "truth" / f"{s.id}.npz")["persona"] for s in (train, val)]
    assert not np.allclose(people[0], people[1])


def test_the_run_card_says_which_voice_was_used(dataset: Path) -> None:
    assert read_json(dataset / "run.json")["config"]["voice_used"] == "formant"


def test_without_media_only_labels_and_truth_are_written(tmp_path: Path) -> None:
    root = make(tmp_path / "labels", "--no-media", "--workers", "1", "--report-bound")
    assert not list((root / "media").iterdir())
    assert len(list((root / "truth").iterdir())) == 2
    assert processed.load(root, "val")[0].n_frames == SECONDS * FPS


def test_a_large_validation_share_still_leaves_a_session_to_train_on(tmp_path: Path) -> None:
    root = make(tmp_path / "labels", "--no-media", "--workers", "1", "--val-share", "0.95")
    assert len(processed.load(root, "train")) == len(processed.load(root, "val")) == 1


def test_an_output_that_cannot_be_written_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("taken")
    monkeypatch.setattr(sys, "argv", ["dyad.synthetic", "--out", str(tmp_path / "file" / "x"), "--workers", "1"])
    with pytest.raises(SystemExit) as end:
        run_main(main)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "file" in said


@pytest.mark.parametrize("flags", [("--sessions", "1"), ("--seconds", "0"), ("--val-share", "1"), ("--workers", "0")])
def test_numbers_that_make_no_dataset_are_refused_before_any_work(tmp_path: Path, flags: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--out", str(tmp_path / "x"), *flags])
    assert end.value.code == 2
    assert not (tmp_path / "x").exists()


def test_a_voice_that_is_not_installed_is_refused_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice.shutil, "which", lambda _: None)
    assert voice.voice_kind("auto") == "formant"
    with pytest.raises(ValueError, match="espeak-ng is not installed"):
        voice.voice_kind("espeak")
