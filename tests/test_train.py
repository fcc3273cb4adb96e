"""Training end to end at toy size: resume is exact, a student is shipped, and what cannot train is refused by name."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.train import Config, main
from distill.trainer import Trainer
from distill.validate import ahead, predict
from distill.weights import LossWeights
from dyad import config as configuration
from dyad.layouts import processed
from dyad.soft_labels import SoftLabelStore
from dyad.synthetic.__main__ import main as make_dyads
from student import checkpoint
from student.spec import StudentSpec

TINY = StudentSpec(crop_px=32, d_model=32, layers=1, heads=2, window_frames=16, ffn=32, visual_channels=8)


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "3", "--seconds", "4", "--val-share", "0.3", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "tiny.yaml"
    configuration.save(TINY, path)
    return path


@pytest.fixture(scope="module")
def base(dyads: Path, preset: Path) -> Config:
    """Three float steps and three quantisation-aware ones; resume points after steps 2, 3, 4 and 6."""
    return Config(
        dataset=dyads,
        out=Path("set by each test"),
        student=preset,
        eyes_steps=2,
        steps=3,
        qat_steps=3,
        validate_every=2,
        batch=2,
        clip_frames=24,
        threads=1,
        workers=1,
    )


@pytest.fixture(scope="module")
def straight(base: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("straight")
    trainer = Trainer(replace(base, out=out), TINY)
    trainer.run()
    trainer.ship()
    return out


def losses_of(run: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    return {row["step"]: row["loss"] for row in rows}


@pytest.mark.parametrize("broken_at", [2, 5], ids=["while float", "while quantisation-aware"])
def test_an_interrupted_run_goes_on_to_the_same_student(
    base: Config, straight: Path, tmp_path: Path, broken_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(base, out=tmp_path)
    trainer = Trainer(config, TINY)
    honest = trainer._train_step

    def pull_the_plug(batch: object) -> dict[str, float]:
        if trainer.step == broken_at:
            raise KeyboardInterrupt
        return honest(batch)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(trainer, "_train_step", pull_the_plug)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    again = Trainer(config, TINY)
    assert again.step == (broken_at if broken_at == 2 else 4)
    again.run()
    again.ship()
    assert losses_of(tmp_path) == losses_of(straight)
    got, want = (checkpoint.load(run / "checkpoint").state_dict() for run in (tmp_path, straight))
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_a_run_leaves_a_quantised_student_its_float_parent_and_their_provenance(straight: Path, base: Config) -> None:
    assert (straight / "checkpoint" / "quant.json").is_file()
    assert not (straight / "float" / "quant.json").exists()
    card = json.loads((straight / "checkpoint" / "run.json").read_text(encoding="utf8"))
    assert card["command"] == "distill.train"
    assert set(card["validation"]) == {f"{k}_h{h}" for k in ("skill", "ccc") for h in (0, 4, 8)}
    kept = configuration.load(Config, straight / "config.yaml")
    assert replace(kept, out=base.out) == base
    assert any((straight / "tensorboard").iterdir())
    assert sorted(losses_of(straight)) == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_started_again_trains_no_further(straight: Path, base: Config) -> None:
    before = losses_of(straight)
    Trainer(replace(base, out=straight), TINY).run()
    assert losses_of(straight) == before


def test_a_few_steps_lower_the_loss_on_a_fixed_clip(base: Config, tmp_path: Path) -> None:
    config = replace(base, out=tmp_path, steps=12, qat_steps=0, learning_rate=3e-3)
    trainer = Trainer(config, TINY)
    batch = trainer.data.batch(0)
    values = []
    for _ in range(12):
        values.append(trainer._train_step(batch)["loss"])
        trainer.step += 1
    assert np.mean(values[-3:]) < values[0]


def test_streaming_in_chunks_scores_the_same_as_in_one_piece(base: Config, tmp_path: Path) -> None:
    trainer = Trainer(replace(base, out=tmp_path), TINY)
    model, session = trainer.averaged.eval(), trainer.data.val[0]
    whole, cut = (predict(model, session, chunk_frames=n)[0] for n in (10_000, 17))
    assert whole.shape == (session.n_frames, 9, 17)
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_a_prediction_is_scored_against_the_frame_it_was_meant_for() -> None:
    true = np.arange(20, dtype=np.float32)[:, None]
    said = np.stack([true + h for h in (0, 4)], axis=1)
    guess, meant = ahead(said, true, 1, 4)
    np.testing.assert_array_equal(guess, meant)
    assert len(guess) == 16


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(base, out=tmp_path)
    trainer = Trainer(config, TINY)
    honest = trainer.data.batch

    def poisoned(step: int, purpose: int = 0) -> object:
        batch = honest(step, purpose)
        return replace(batch, audio=batch.audio * torch.nan) if (step, purpose) == (2, 0) else batch

    monkeypatch.setattr(trainer.data, "batch", poisoned)
    with pytest.raises(ValueError, match=r"loss became nan at step 2; .*lower --learning-rate"):
        trainer.run()
    kept = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert kept["step"] == 2
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_another_student_in_the_same_folder_is_refused(base: Config, straight: Path) -> None:
    with pytest.raises(ValueError, match="begun with another student"):
        Trainer(replace(base, out=straight), TINY.replace(ffn=64))


def test_soft_labels_are_learnt_from_where_the_teacher_spoke(base: Config, dyads: Path, tmp_path: Path) -> None:
    sessions = processed.load(dyads, "train")
    store = SoftLabelStore.create(tmp_path / "labels", au_names=TINY.au_names, teacher_hash="t", run={})
    zeros = np.zeros_like(sessions[0].prob)
    store.write(sessions[0].id, zeros + 0.3, zeros - 1, zeros + 0.05)
    trainer = Trainer(replace(base, out=tmp_path / "run", labels=tmp_path / "labels"), TINY)
    assert [s.soft is not None for s in trainer.data.train] == [True, False]
    assert trainer._train_step(trainer.data.batch(0))["soft"] > 0
    assert trainer._card()["inputs"]["teacher"] == "t"


def test_soft_labels_of_another_length_are_refused_with_the_remedy(base: Config, dyads: Path, tmp_path: Path) -> None:
    first = processed.load(dyads, "train")[0].id
    store = SoftLabelStore.create(tmp_path / "labels", au_names=TINY.au_names, teacher_hash="t", run={})
    short = np.full((50, 17), 0.5, np.float32)
    store.write(first, short, short, short)
    with pytest.raises(ValueError, match=f"50 frames, but the session has 120.*teacher.label --only {first}"):
        Trainer(replace(base, out=tmp_path / "run", labels=tmp_path / "labels"), TINY)


def test_a_session_with_broken_media_is_left_out_by_name_and_the_rest_trains(
    base: Config, dyads: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "dyads"
    shutil.copytree(dyads, root, ignore=shutil.ignore_patterns("cache"))
    broken = processed.load(root, "train")[0]
    broken.speaker_video_path.write_bytes(b"no film")
    trainer = Trainer(replace(base, dataset=root, out=tmp_path / "run"), TINY)
    said = capsys.readouterr().out
    assert f"left out {broken.id}: " in said
    assert "train: 1 sessions, 0 with soft labels, 1 left out" in said
    assert broken.id not in {s.id for s in trainer.data.train}


def test_decoded_sessions_are_reused_until_their_media_change(base: Config, dyads: Path, tmp_path: Path) -> None:
    Trainer(replace(base, out=tmp_path), TINY)
    entry = next((dyads / "cache").glob("*/*/frames.npy"))
    before = entry.stat().st_mtime_ns
    Trainer(replace(base, out=tmp_path), TINY)
    assert entry.stat().st_mtime_ns == before


def test_the_command_trains_from_a_preset_and_flags(base: Config, preset: Path, dyads: Path, tmp_path: Path) -> None:
    flags = ["--dataset", str(dyads), "--out", str(tmp_path), "--student", str(preset), "--threads", "1"]
    flags += ["--eyes-steps", "1", "--steps", "1", "--qat-steps", "0"]
    flags += ["--batch", "1", "--clip-frames", "16", "--workers", "1"]
    assert main(["--config", "configs/distill/demo.yaml", *flags]) == 0
    assert checkpoint.load(tmp_path / "checkpoint").spec == TINY


@pytest.mark.parametrize("name", sorted(p.stem for p in Path("configs/distill").glob("*.yaml")))
def test_every_training_preset_is_whole_but_for_dataset_and_folder(name: str, tmp_path: Path) -> None:
    flags = ["--config", f"configs/distill/{name}.yaml", "--dataset", str(tmp_path), "--out", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=r"no processed/train there; make one with python -m dyad.synthetic"):
        main(flags)
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_in_a_preset_names_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("lerning_rate: 1.0e-3\n", encoding="utf8")
    with pytest.raises(SystemExit) as end:
        main(["--config", str(preset), "--dataset", "x", "--out", "y"])
    assert end.value.code == 2
    assert "did you mean 'learning_rate'?" in capsys.readouterr().err


def test_a_run_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="steps ≥ 1"):
        Config(dataset=Path(), out=Path(), steps=0)


def test_help_comes_without_importing_torch() -> None:
    code = (
        "import sys, distill.train as t\ntry:\n    t.main(['--help'])\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--learning-rate" in done.stdout


def test_all_loss_weights_can_be_set_from_the_command_line(tmp_path: Path) -> None:
    flags = ["--dataset", str(tmp_path), "--out", str(tmp_path), "--loss.ccc", "0.25", "--loss.focal", "1"]
    parsed = configuration.parse(Config, flags, prog="train", description="")
    assert parsed.loss == LossWeights(ccc=0.25, focal=1.0)
