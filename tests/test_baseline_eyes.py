"""A baseline's eyes open on the speakers' own units, and may then stay as they are."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from tiny_baseline import PX, SMALL, WINDOW, seen, small_model

from distill import losses
from distill.baselines import eyes, folder, inputs, predict, rollout, run
from distill.baselines.inputs import UNITS
from distill.baselines.settings import TransVaeSettings
from distill.train import Config
from dyad.action_units import SEED17
from dyad.augment import AugmentConfig
from dyad.layouts import processed
from dyad.synthetic.__main__ import main as make_dyads

OFFLINE = TransVaeSettings(crop_px=PX, samples=2, diversity=0)


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "3", "--seconds", "3", "--val-share", "0.3", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


def config_of(dyads: Path, out: Path) -> Config:
    return Config(
        dataset=dyads, out=out, baseline="transvae-online", transvae=replace(SMALL, diversity=0), steps=3, batch=2,
        clip_frames=16, eyes_steps=4, freeze_eyes=True, validate_every=2, threads=1, workers=1, device="cpu",
    )  # fmt: skip


def test_drawn_frames_carry_the_units_of_their_own_speaker(dyads: Path) -> None:
    materials = inputs.open_split(dyads, "train", SMALL, workers=1)
    still = AugmentConfig(brightness=0, colour=0, shift_px=0)
    pictures, units = eyes.draw_frames(materials, np.random.default_rng(0), still)
    assert pictures.shape == (eyes.SESSIONS, eyes.FRAMES, 32, 32, 3)
    for shown, told in zip(pictures[:2].numpy(), units[:2].numpy(), strict=True):
        for picture, values in zip(shown[:3], told[:3], strict=True):
            held = [m.speaker[t] for m in materials for t in range(m.n_frames) if (m.frames[t] == picture).all()]
            assert any(np.array_equal(values, own, equal_nan=True) for own in held)
    own = processed.speaker_units(dyads, materials[0].id, SEED17.units)
    assert own is not None
    np.testing.assert_array_equal(materials[0].speaker[:, : len(SEED17.units)], own[: materials[0].n_frames])
    assert np.isnan(materials[0].speaker[:, UNITS.index("AU24")]).all()


def test_opening_the_eyes_moves_nothing_but_them_and_lowers_the_error(dyads: Path) -> None:
    materials = inputs.open_split(dyads, "train", SMALL, workers=1)
    model = small_model()
    before = {n: p.clone() for n, p in model.state_dict().items()}
    first = eyes.open_eyes(model, materials, AugmentConfig(), steps=1, seed=0)
    last = eyes.open_eyes(model, materials, AugmentConfig(), steps=12, seed=0)
    assert first is not None
    assert last is not None
    assert last < 0.8 * first
    assert first == pytest.approx(np.log(2), abs=0.2)  # a head that knows nothing says one half
    moved = {n for n, p in model.state_dict().items() if not torch.equal(p, before[n])}
    assert moved
    assert all(n.startswith("video.") for n in moved)
    assert losses.cross_entropy(torch.zeros(1, 1), torch.zeros(1, 1)) == pytest.approx(np.log(2))


def test_without_units_or_steps_the_eyes_stay_shut(dyads: Path) -> None:
    materials = inputs.open_split(dyads, "train", SMALL, workers=1)
    model = small_model()
    assert eyes.open_eyes(model, materials, AugmentConfig(), steps=0, seed=0) is None
    blind = [replace(m, speaker=np.full_like(m.speaker, np.nan)) for m in materials]
    assert eyes.open_eyes(model, blind, AugmentConfig(), steps=3, seed=0) is None


def test_features_are_as_good_as_the_pictures_they_were_made_of() -> None:
    model, (crops, cepstra) = small_model(), seen(2, 22)
    made = rollout.features(model, crops)
    assert made.shape[1] % WINDOW == 0
    of_pictures = rollout.behaviours(model, crops, cepstra, SMALL)
    of_features = rollout.behaviours(model, made[:, :22], cepstra, SMALL)
    for a, b in zip(of_pictures[:-1], of_features[:-1], strict=True):  # the last one repeats frames, not features
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("normalise", ["clip", "session"])
def test_the_offline_model_answers_from_kept_looks_as_from_pictures(
    normalise: Literal["clip", "session"], dyads: Path, tmp_path: Path
) -> None:
    offline = replace(OFFLINE, normalise=normalise)
    trainer = run.Trainer(replace(config_of(dyads, tmp_path), baseline="transvae-offline", transvae=offline))
    assert trainer.source.grid_frames == (1 if normalise == "session" else 16)
    shown, heard, wanted, _ = trainer.clips(0)
    assert shown.shape == (2, 16, 128)
    assert heard.shape[:2] == wanted.shape[:2] == (2, 16)
    material, trained = trainer.watched[0], trainer._trained()
    from_looks = predict.answers(trained, material, [None, 3], trainer.watched_seen[0])
    np.testing.assert_allclose(from_looks, predict.answers(trained, material, [None, 3]), atol=1e-5)
    first = replace(material, frames=material.frames[:30], cepstra=material.cepstra[:30])
    same = np.allclose(predict.answers(trained, first, [None])[:, :14], from_looks[:1, :14], atol=1e-5)
    assert same == (normalise == "clip")  # what comes after a clip is known by way of the session alone


def test_eyes_that_learn_are_not_normalised_over_a_session(dyads: Path, tmp_path: Path) -> None:
    over_session = replace(OFFLINE, normalise="session")
    config = replace(config_of(dyads, tmp_path), baseline="transvae-offline", transvae=over_session)
    with pytest.raises(ValueError, match="add --freeze-eyes"):
        run.Trainer(replace(config, freeze_eyes=False))


def test_a_baseline_takes_over_anothers_eyes(dyads: Path, tmp_path: Path) -> None:
    first = run.Trainer(config_of(dyads, tmp_path / "first"))
    first.ship()
    other = replace(config_of(dyads, tmp_path / "other"), eyes=tmp_path / "first", seed=5, eyes_steps=0)
    second = run.Trainer(other)
    for name, weight in second.model.video.state_dict().items():
        assert torch.equal(weight, first.model.video.state_dict()[name])
    with pytest.raises(ValueError, match="see crops of 32 px, wanted 48"):
        folder.take_eyes(second.model, tmp_path / "first", replace(SMALL, crop_px=48))


def test_eyes_that_are_kept_see_no_clip_and_an_interrupted_run_still_goes_on(dyads: Path, tmp_path: Path) -> None:
    straight = run.Trainer(config_of(dyads, tmp_path / "straight"))
    opened = {n: p.clone() for n, p in straight.model.video.state_dict().items()}
    shown, heard, wanted, _ = straight.clips(0)
    assert shown.shape == (2, 16, 128)
    assert heard.shape[:2] == wanted.shape[:2] == (2, 16)
    straight.run()
    shipped = straight.ship()
    for name, weight in shipped.model.video.state_dict().items():
        assert torch.equal(weight, opened[name])
    half = run.Trainer(config_of(dyads, tmp_path / "half"))
    for half.step in range(2):
        half.train_step(half.clips(half.step))
    half.step = 2
    half._save_resume_point()
    again = run.Trainer(config_of(dyads, tmp_path / "half"))
    again.run()
    again.ship()
    got, want = (folder.load(tmp_path / n).model.state_dict() for n in ("half", "straight"))
    assert all(torch.equal(got[name], want[name]) for name in want)
