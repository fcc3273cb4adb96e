"""What a baseline hears, is to answer, and pays for: cepstra, attributes by name, the loss with gaps in the labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import react_trees
import torch
import torchaudio
from tiny_baseline import SMALL
from torchaudio.compliance import kaldi

from distill.baselines import inputs, rollout
from distill.baselines.loss import alikeness, divergence, objective, squared_error
from distill.baselines.settings import TransVaeSettings
from dyad import clock
from dyad.action_units import REACT_ATTRIBUTES
from dyad.prepare.__main__ import main as prepare


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
    nearly = one._replace(attributes=one.attributes * 1.01, face=one.face * 0.99)
    terms = objective(one, nearly, attributes, face, TransVaeSettings())
    square = [((a - b) ** 2).mean(dim=(1, 2)) for a, b in zip(one[:2], nearly[:2], strict=True)]
    wide = (256 * one.face.shape[2], 256 * one.attributes.shape[2])  # numbers of a published clip
    alike = sum(torch.exp(-s * n / 100).mean() for s, n in zip(square, wide, strict=True))
    torch.testing.assert_close(terms["diversity"], 10 * torch.as_tensor(alike))
    normal = torch.distributions.Normal(one.mean, torch.exp(0.5 * one.log_variance))
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(terms["kl"], 1e-5 * kl)
    assert divergence(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)) == 0
    assert alikeness(one.face, one.face, face) == 1
    assert alikeness(one.face, one.face, torch.full_like(face, torch.nan)) == 0
    assert squared_error(one.face, one.face) == 0
