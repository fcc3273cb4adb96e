"""Trans-VAE beside the student: its size, what it may know, its loss, its training and its answers on disk."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import react_trees
import torch
import torchaudio
from torch import Tensor
from torchaudio.compliance import kaldi

from distill.baselines import folder, inputs, predict, rollout, run
from distill.baselines.folder import Trained
from distill.baselines.inputs import Material
from distill.baselines.loss import alikeness, divergence, objective, squared_error
from distill.baselines.settings import Timing, TransVaeSettings, timing
from distill.baselines.transvae import TransVae
from distill.baselines.vision import running_norm
from distill.evaluate import Config as EvaluateConfig
from distill.evaluate import evaluate
from distill.train import Config
from distill.train import main as train_main
from dyad import clock
from dyad.action_units import REACT_ATTRIBUTES, SEED17
from dyad.layouts import processed
from dyad.predictions import PredictionStore
from dyad.prepare.__main__ import main as prepare
from dyad.synthetic.__main__ import main as make_dyads

FRAMES, WINDOW, PX = 22, 4, 32
SMALL = TransVaeSettings(window_frames=WINDOW, context_frames=12, crop_px=PX, ahead_frames=5, samples=2, diversity=0.1)


def seen(batch: int = 1, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    maker = torch.Generator().manual_seed(1)
    crops = torch.randint(0, 256, (batch, frames, PX, PX, 3), dtype=torch.uint8, generator=maker)
    return crops, torch.randn(batch, frames, 78, generator=maker)


def small_model(*, online: bool = True) -> TransVae:
    torch.manual_seed(0)
    return TransVae(online=online, window_frames=WINDOW).eval()


def answer(model: TransVae, crops: Tensor, cepstra: Tensor, settings: TransVaeSettings = SMALL) -> Tensor:
    """Attributes [B, T, A] at the mean of every distribution."""
    looks = rollout.behaviours(model, crops, cepstra, settings)
    return rollout.respond(model, looks, crops.shape[1], torch.zeros(len(looks), len(crops), 128)).attributes


# ---- the model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("online", "count"), [(True, 1_670_835), (False, 1_315_891)], ids=["online", "offline"])
def test_the_models_have_the_parameters_that_were_measured_on_the_published_ones(online: bool, count: int) -> None:
    assert sum(p.numel() for p in TransVae(online=online).parameters()) == count


@pytest.mark.parametrize("frames", [8, 22, 23, 3])
@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
def test_every_frame_is_answered_also_the_last_ones_of_no_whole_window(online: bool, frames: int) -> None:
    crops, cepstra = seen(2, frames)
    model = small_model(online=online)
    looks = rollout.behaviours(model, crops, cepstra, SMALL) if frames > 1 else []
    response = rollout.respond(model, looks, frames, torch.zeros(len(looks), 2, 128))
    assert response.attributes.shape == (2, frames, 25)
    assert response.face.shape == (2, frames, 58)
    assert (response.attributes.abs().sum(dim=2) > 0).all()
    assert len(looks) == (-(-frames // WINDOW) if online else 1)


@pytest.mark.parametrize("encode", ["running", "history"])
def test_no_gradient_reaches_a_window_from_frames_after_it_but_from_all_frames_in_it(encode: str) -> None:
    model = small_model()
    crops, cepstra = seen()
    cepstra.requires_grad_()
    pictured = crops.float().requires_grad_()
    settings = replace(SMALL, encode=encode, context_frames=0)
    said = answer(model, pictured, cepstra, settings)
    for t in (0, 5, 11):
        end = (t // WINDOW + 1) * WINDOW
        gradients = torch.autograd.grad(said[0, t].sum(), (pictured, cepstra), retain_graph=True)
        for gradient in gradients:
            reach = gradient[0].flatten(1).abs().sum(dim=1)
            assert (reach[end:] == 0).all()
            assert (reach[:end] > 0).all()


def test_an_answer_reads_no_features_from_before_its_context() -> None:
    model = small_model()
    crops, cepstra = seen()
    cepstra.requires_grad_()
    looks = rollout.behaviours(model, crops, cepstra, SMALL)
    reach = torch.autograd.grad(looks[-1].sum(), cepstra)[0][0].abs().sum(dim=1)
    assert (reach[:12] == 0).all()  # 24 frames with the repeated ones, of which the last 12 are kept
    assert (reach[12:] > 0).all()


def test_running_statistics_are_those_of_all_frames_up_to_the_end_of_the_window() -> None:
    maker = torch.Generator().manual_seed(2)
    x = torch.randn(2, 3, 12, 5, 5, generator=maker) * 3 + 7
    got, _ = running_norm(x, WINDOW, None)
    for end in (4, 8, 12):
        want = torch.nn.functional.instance_norm(x[:, :, :end])[:, :, end - WINDOW :]
        torch.testing.assert_close(got[:, :, end - WINDOW : end], want, atol=1e-4, rtol=0)


def test_a_clip_encoded_in_pieces_is_the_clip_encoded_at_once() -> None:
    model, (crops, cepstra) = small_model(), seen(2, 20)
    video = rollout.pictures(crops)
    whole, _ = model.encode_windows(video, cepstra)
    head, state = model.encode_windows(video[:, :, :8], cepstra[:, :8])
    tail, _ = model.encode_windows(video[:, :, 8:], cepstra[:, 8:], state)
    torch.testing.assert_close(torch.cat([head, tail], dim=1), whole)


def test_the_first_window_is_encoded_as_if_it_were_the_whole_clip() -> None:
    model, (crops, cepstra) = small_model(), seen(frames=WINDOW)
    running, history = (answer(model, crops, cepstra, replace(SMALL, encode=way)) for way in ("running", "history"))
    torch.testing.assert_close(running, history)


def test_the_offline_model_looks_at_the_whole_clip() -> None:
    crops, cepstra = seen()
    cepstra.requires_grad_()
    said = answer(small_model(online=False), crops, cepstra)
    assert (torch.autograd.grad(said[0, 0].sum(), cepstra)[0][0].abs().sum(dim=1) > 0).all()


def test_react_refuses_a_past_that_does_not_end_where_the_window_begins() -> None:
    with pytest.raises(ValueError, match="all but the last 4 of 8 frames, got 5"):
        small_model().react(torch.zeros(1, 8, 128), torch.zeros(1, 5, 58), torch.zeros(1, 5, 25))


# ---- what an answer may know ------------------------------------------------------------------------------------


def test_latency_is_the_window_and_training_ahead_buys_it_back() -> None:
    published = timing("transvae-online", TransVaeSettings(), 128)
    assert (published.block_frames, published.look_ahead_frames, published.horizons) == (8, 7, (0,))
    wide = timing("transvae-online", TransVaeSettings(window_frames=16), 128)
    assert (wide.block_frames, wide.look_ahead_frames) == (16, 15)
    live = timing("transvae-online", TransVaeSettings(ahead_frames=11), 128)
    assert (live.look_ahead_frames, live.horizons) == (0, (0, 1, 2, 3, 4))
    assert timing("transvae-offline", TransVaeSettings(ahead_frames=11), 128).look_ahead_frames == 116


@pytest.mark.parametrize(("window", "ahead"), [(8, 0), (8, 3), (8, 11), (16, 30)])
def test_no_stored_value_uses_a_frame_later_than_its_look_ahead(window: int, ahead: int) -> None:
    when = Timing(block_frames=window, ahead_frames=ahead)
    last_seen = (np.arange(96) // window + 1) * window - 1.0  # of the window of row u, by definition
    stored = predict.at_horizons(last_seen[:, None].astype(np.float32), ahead, when.horizons, np.array([-1.0]))
    peek = stored[:, :, 0] - np.arange(96)[:, None]
    assert peek.max() <= when.look_ahead_frames
    assert when.look_ahead_frames == 0 or (peek.max() == when.look_ahead_frames and when.horizons == (0,))


def test_a_stored_value_is_what_was_said_for_its_frame_and_the_mean_before_anything_was_said() -> None:
    said = np.arange(10, dtype=np.float32)[:, None] + 3  # row u speaks of frame u + 3
    stored = predict.at_horizons(said, 3, (0, 2), np.array([-1.0]))
    assert stored[:, 0, 0].tolist() == [-1, -1, -1, 3, 4, 5, 6, 7, 8, 9]
    assert stored[:, 1, 0].tolist() == [-1, 3, 4, 5, 6, 7, 8, 9, 10, 11]


# ---- inputs -------------------------------------------------------------------------------------------------------


def test_cepstra_are_kaldis_of_the_two_columns_that_end_with_the_frame() -> None:
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.standard_normal(16000)).astype(np.float32)
    got = inputs.cepstra(sound, 30)
    assert got.shape == (30, 78)
    for t in (5, 29):
        end = clock.audio_end(t)
        last = torch.from_numpy(sound[end - 560 : end])[None]
        columns = kaldi.mfcc(last, sample_frequency=16000, use_energy=True)
        assert columns.shape == (2, 13)
        rise = torchaudio.functional.compute_deltas(columns.T)
        again = torchaudio.functional.compute_deltas(rise)
        want = torch.stack([columns, rise.T, again.T]).flatten()
        np.testing.assert_allclose(got[t], want, atol=1e-4)


def test_cepstra_of_a_frame_hear_nothing_after_it() -> None:
    sound = np.full(16000, 0.1, np.float32)
    later = sound.copy()
    later[clock.audio_end(9) :] = -0.7
    before, after = inputs.cepstra(sound, 30), inputs.cepstra(later, 30)
    np.testing.assert_array_equal(before[:10], after[:10])
    assert (before[10] != after[10]).any()


def test_react_data_bring_their_attributes_and_coefficients_by_name(tmp_path: Path) -> None:
    raw = react_trees.react2024(tmp_path / "raw", media_too=True)
    assert prepare([str(raw), str(tmp_path / "data"), "--layout", "react2024", "--workers", "1"]) == 0
    settings = replace(SMALL, challenge=raw)
    material = inputs.open_split(tmp_path / "data", "train", settings, workers=1)[0]
    names = settings.names
    assert names[:25] == REACT_ATTRIBUTES
    known = ~np.isnan(material.attributes[:-2]).max(axis=0)
    assert [n for n, k in zip(names, known, strict=True) if not k] == ["AU5", "AU18", "AU20"]
    own = {i.id: i for i in inputs._challenge_items(raw, "train").values()}[material.id]
    rows = inputs.attributes.read(own.listener.attributes)
    np.testing.assert_allclose(material.attributes[6, names.index("valence")], rows[5, 15], atol=1e-5)
    assert (material.face[:-2] == len(own.listener.clip)).all()
    plain = inputs.open_split(tmp_path / "data", "train", SMALL, workers=1)[0]
    assert np.isnan(plain.attributes[:, names.index("valence")]).all()
    assert np.isnan(plain.face).all()


# ---- loss ---------------------------------------------------------------------------------------------------------


def response(seed: int = 0, batch: int = 2, frames: int = 6) -> rollout.Response:
    maker = torch.Generator().manual_seed(seed)
    shapes = ((batch, frames, 58), (batch, frames, 28), (batch, 3, 128), (batch, 3, 128))
    return rollout.Response(*(torch.randn(shape, generator=maker) for shape in shapes))


def test_what_is_not_annotated_changes_no_term_and_gets_no_gradient() -> None:
    one, other = response(0), response(1)
    wanted = torch.rand(2, 6, 28)
    wanted[..., 20:], wanted[1, 3, 5] = torch.nan, torch.nan
    nothing = torch.full((2, 6, 58), torch.nan)
    said = one.attributes.clone().requires_grad_()
    terms = objective(one._replace(attributes=said), other, wanted, nothing, SMALL)
    terms["loss"].backward()
    assert said.grad is not None
    assert (said.grad[..., 20:] == 0).all()
    assert terms["expression"] == terms["pose"] == 0
    known = ~torch.isnan(wanted)
    torch.testing.assert_close(terms["attributes"], ((said - wanted)[known] ** 2).mean().detach())


def test_terms_are_weighted_as_published() -> None:
    one, other = response(0), response(1)
    attributes, face = torch.rand(2, 6, 28), torch.rand(2, 6, 58)
    terms = objective(one, other, attributes, face, TransVaeSettings())
    torch.testing.assert_close(terms["pose"], 10 * ((one.face - face)[..., 52:] ** 2).mean())
    torch.testing.assert_close(terms["expression"], ((one.face - face)[..., :52] ** 2).mean())
    distance = sum(
        ((a - b) ** 2).sum(dim=(1, 2)) for a, b in ((one.attributes, other.attributes), (one.face, other.face))
    )
    torch.testing.assert_close(terms["diversity"], 10 * torch.exp(-torch.as_tensor(distance) / 100).mean())
    normal = torch.distributions.Normal(one.mean, torch.exp(0.5 * one.log_variance))
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=2).mean()
    torch.testing.assert_close(terms["kl"], 1e-5 * kl)
    assert divergence(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)) == 0
    assert alikeness(one.face, one.face, face) == 1
    assert squared_error(one.face, one.face) == 0


# ---- training and answers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "3", "--seconds", "3", "--val-share", "0.3", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


def config_of(dyads: Path, out: Path) -> Config:
    return Config(
        dataset=dyads, out=out, baseline="transvae-online", transvae=SMALL, steps=5, batch=2, clip_frames=16,
        validate_every=2, learning_rate=1e-3, threads=1, workers=1, device="cpu",
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
    assert set(store.ids()) == {session.id, *(s.id for s in processed.load(dyads, "train"))}
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
