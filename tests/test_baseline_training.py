"""A baseline trains, goes on where it was, and leaves answers on disk that evaluation scores."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_baseline import SMALL
from torch import Tensor

from distill.baselines import folder, inputs, predict, run
from distill.baselines.folder import Trained
from distill.baselines.inputs import Material
from distill.evaluate import Config as EvaluateConfig
from distill.evaluate import evaluate
from distill.train import Config
from distill.train import main as train_main
from dyad.action_units import REACT_ATTRIBUTES, SEED17
from dyad.layouts import processed
from dyad.predictions import PredictionStore
from dyad.synthetic.__main__ import main as make_dyads


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "3", "--seconds", "3", "--val-share", "0.3", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


def config_of(dyads: Path, out: Path) -> Config:
    return Config(
        dataset=dyads, out=out, baseline="transvae-online", transvae=SMALL, steps=5, batch=2, clip_frames=16,
        eyes_steps=2, validate_every=2, learning_rate=1e-3, threads=1, workers=1, device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(dyads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("straight")
    run.train(config_of(dyads, out))
    return out


def lines_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf8").splitlines()]


def test_an_interrupted_run_goes_on_to_the_same_model(dyads: Path, straight: Path, tmp_path: Path) -> None:
    trainer = run.Trainer(config_of(dyads, tmp_path))
    honest = trainer.train_step

    def pull_the_plug(clips: list[Tensor]) -> dict[str, float]:
        if trainer.step == 3:
            raise KeyboardInterrupt
        return honest(clips)

    trainer.train_step = pull_the_plug  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    again = run.Trainer(config_of(dyads, tmp_path))
    assert again.step == 2
    again.run()
    again.ship()
    assert lines_of(tmp_path) == lines_of(straight)
    got, want = (folder.load(out).model.state_dict() for out in (tmp_path, straight))
    assert all(torch.equal(got[name], want[name]) for name in want)
    with pytest.raises(ValueError, match="begun with another seed"):
        run.Trainer(replace(config_of(dyads, tmp_path), seed=1))


def test_a_run_leaves_answers_that_evaluation_scores_and_a_card_that_states_their_latency(
    straight: Path, dyads: Path, tmp_path: Path
) -> None:
    card = json.loads((straight / "baseline.json").read_text(encoding="utf8"))
    assert (card["name"], card["algorithmic_latency_frames"], card["look_ahead_frames"]) == ("Trans-VAE online", 4, 0)
    assert card["run"]["command"] == "distill.train"
    assert card["horizons"] == [0, 1, 2]
    assert set(card["learned"]) == set(SEED17.units)
    store = PredictionStore.open(straight / "predictions", au_names=SEED17.units)
    session = processed.load(dyads, "val")[0]
    assert set(store.ids()) == {session.id}
    predicted = store.read(session.id)
    assert predicted.prob.shape == (session.n_frames, 3, 17)
    assert predicted.prob.min() >= 0
    assert predicted.prob.max() <= 1
    report = evaluate(
        EvaluateConfig(
            dataset=dyads,
            out=tmp_path,
            predictions=straight / "predictions",
            baseline=(straight,),
            horizon=2,
            resamples=2,
            bound_sessions=0,
        )
    )
    assert "Trans-VAE online, 2 draws" in report.table()


def trained(straight: Path, dyads: Path) -> tuple[Trained, Material]:
    loaded = folder.load(straight)
    return loaded, inputs.open_split(dyads, "val", loaded.settings, workers=1)[0]


def test_samples_repeat_with_their_seed_and_differ_from_each_other(straight: Path, dyads: Path, tmp_path: Path) -> None:
    flags = ["--run", str(straight), "--dataset", str(dyads), "--threads", "1", "--workers", "1"]
    assert predict.main([*flags, "--out", str(tmp_path / "two")]) == 0
    assert predict.main([*flags, "--out", str(tmp_path / "three"), "--samples", "3"]) == 0
    assert predict.main([*flags, "--out", str(tmp_path / "other"), "--seed", "1"]) == 0
    _, material = trained(straight, dyads)
    two, three, other, kept = (
        np.load(where / "samples" / f"{material.id}.npz")
        for where in (tmp_path / "two", tmp_path / "three", tmp_path / "other", straight)
    )
    assert three["samples"].shape == (3, material.n_frames, 17)
    assert tuple(two["names"]) == SEED17.units
    assert set(two.files) == {"samples", "names"}
    np.testing.assert_array_equal(two["samples"], kept["samples"])
    np.testing.assert_allclose(two["samples"], three["samples"][:2], atol=1e-5)
    assert np.abs(three["samples"][0] - three["samples"][1]).max() > 1e-3
    assert np.abs(two["samples"] - other["samples"]).max() > 1e-3


def test_a_session_of_any_length_is_answered_whole_by_the_offline_model_too(straight: Path, dyads: Path) -> None:
    online, material = trained(straight, dyads)
    offline = replace(
        online, model=folder.build("transvae-offline", online.settings).eval(), baseline="transvae-offline"
    )
    for frames in (material.n_frames, 21, 16, 9):
        short = replace(material, frames=material.frames[:frames], cepstra=material.cepstra[:frames])
        said = predict.answers(offline, short, [None, 3])
        assert said.shape == (2, frames, 28)
        assert (np.abs(said).sum(axis=2) > 0).all()


def test_a_few_steps_lower_the_loss_on_a_fixed_clip(dyads: Path, tmp_path: Path) -> None:
    config = config_of(dyads, tmp_path)
    trainer = run.Trainer(replace(config, steps=25, transvae=replace(SMALL, diversity=0)))
    clips, losses = trainer.clips(0), []
    for trainer.step in range(25):
        losses.append(trainer.train_step(clips)["attributes"])
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])


REFUSED: Sequence[tuple[list[str], str]] = (
    (["--baseline", "transvae-online", "--labels", "x"], "hard labels alone"),
    (["--baseline", "transvae-online", "--clip-frames", "100"], "not a multiple of the window of 8"),
    (["--baseline", "transvae"], "transvae-online"),
    (["--transvae.crop-px", "50"], "multiple of 16"),
    (["--transvae.context-frames", "4"], "less than a window"),
    (
        ["--baseline", "transvae-online", "--qat-steps", "5", "--ema", "0.9", "--augment.stretch", "0"],
        "transvae-online has no use for qat_steps, ema, augment.stretch; leave that out",
    ),
    (["--baseline", "transvae-offline", "--loss.temporal", "1"], "has no use for loss.temporal;"),
    (["--baseline", "transvae-offline", "--transvae.context-frames", "16"], "no use for transvae.context_frames;"),
    (["--baseline", "transvae-online", "--transvae.normalise", "session"], "no use for transvae.normalise;"),
    (["--transvae.samples", "3"], "a student has no use for transvae.samples;"),
)


@pytest.mark.parametrize(("flags", "sentence"), REFUSED)
def test_what_cannot_train_is_refused_by_name(
    flags: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train_main(["--dataset", str(tmp_path), "--out", str(tmp_path), *flags])
    assert sentence in capsys.readouterr().err


def test_a_clip_longer_than_every_session_is_refused(dyads: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longest: 90"):
        run.Trainer(replace(config_of(dyads, tmp_path), clip_frames=200))


def test_a_folder_without_a_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train one with"):
        folder.load(tmp_path)


def test_more_than_units_is_kept_beside_the_units_where_it_was_learned(straight: Path, dyads: Path) -> None:
    online, material = trained(straight, dyads)
    names = online.settings.names
    learned = np.array([n in REACT_ATTRIBUTES for n in names])
    said = predict.answers(online, material, [1, 2])
    arrays = predict._samples(replace(online, learned=learned), said)
    assert tuple(arrays["attribute_names"]) == REACT_ATTRIBUTES
    assert arrays["attributes"].shape == (2, material.n_frames, 25)
    np.testing.assert_array_equal(arrays["attributes"][:, 5:], said[:, :-5, :25])  # row t is shown at frame t
    assert (arrays["samples"][..., SEED17.index("AU18")] == 0).all()
    assert (arrays["attributes"][:, :5] == online.training_mean[:25]).all()
