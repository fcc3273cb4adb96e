"""Trans-VAE can learn what it is shown by heart, and what its one sample can and cannot tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_baseline import PX, SMALL, WINDOW, seen, small_model
from torch import Tensor

from distill.baselines import eyes, rollout
from distill.baselines.loss import objective
from distill.baselines.settings import TransVaeSettings
from distill.baselines.transvae import TransVae, asked
from dyad.metrics import agreement

CLIPS, FRAMES, UNITS = 3, 16, 5
LENGTH = 6
SILENCE = torch.zeros(36, LENGTH, 78)


def material() -> tuple[Tensor, Tensor, Tensor]:
    """Behaviours [B, T, D] and the reactions that go with them, attributes [B, T, 25] of which 5 known, no faces."""
    maker = torch.Generator().manual_seed(3)
    behaviour = torch.randn(CLIPS, FRAMES, 128, generator=maker)
    phase, pace = (torch.rand(CLIPS, 1, UNITS, generator=maker) for _ in range(2))
    wanted = torch.full((CLIPS, FRAMES, 25), torch.nan)
    wanted[..., :UNITS] = 0.5 + 0.4 * torch.sin(6.3 * phase + (0.2 + 0.4 * pace) * torch.arange(FRAMES)[:, None])
    return behaviour, wanted, torch.full((CLIPS, FRAMES, 58), torch.nan)


def windows_of(model: TransVae, behaviour: Tensor) -> list[Tensor]:
    ends = range(WINDOW, FRAMES + 1, WINDOW) if model.online else [FRAMES]
    return [behaviour[:, :end] for end in ends]


def learn(model: TransVae, settings: TransVaeSettings, steps: int) -> None:
    behaviour, wanted, face = material()
    looks = windows_of(model, behaviour)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(steps):
        draws = [
            rollout.respond(model, looks, FRAMES, torch.randn(len(looks), CLIPS, 128))
            for _ in range(2 if settings.diversity else 1)
        ]
        loss = objective(draws[0], draws[1] if settings.diversity else None, wanted, face, settings)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def said(model: TransVae, seeds: list[int]) -> Tensor:
    """Known attributes [N, B, T, U] of the draws; seed 0 is the distribution's mean."""
    looks = windows_of(model, material()[0])
    noise = [torch.randn(len(looks), CLIPS, 128, generator=torch.Generator().manual_seed(s)) * bool(s) for s in seeds]
    return torch.stack([rollout.respond(model, looks, FRAMES, n).attributes[..., :UNITS] for n in noise])


@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
def test_a_batch_is_learned_by_heart(online: bool) -> None:
    model = small_model(online=online)
    learn(model, replace(SMALL, diversity=0), 120 if online else 250)
    guess, true = said(model, [0])[0].flatten(0, 1).numpy(), material()[1][..., :UNITS].flatten(0, 1).numpy()
    found = agreement.scores(agreement.sums(guess, true, true.mean(axis=0)))
    assert agreement.macro(found.ccc)[0] > 0.8


def held(strengths: Tensor, seed: int) -> NDArray[np.uint8]:
    """Frames [T, h, w, 3] of one session: in each clip the same grating, as strong as told, and noise."""
    rng, wave = np.random.default_rng(seed), 40 * np.sin(np.arange(PX) * 0.8)[:, None]
    shown = 128 + strengths.repeat_interleave(LENGTH).numpy()[:, None, None, None] * wave[None, :, None]
    return (shown + rng.normal(0, 2, (len(shown), PX, PX, 3))).astype(np.uint8)


def test_a_speakers_level_survives_normalisation_over_the_session_but_not_over_a_clip() -> None:
    model, frames = small_model(online=False), held(torch.tensor([0.3, 0.6, 0.9]), 0)
    clips = [slice(start, start + LENGTH) for start in range(0, len(frames), LENGTH)]
    whole, cut = eyes.look(model, frames), eyes.look(model, frames, clips)
    assert torch.equal(whole, eyes.look(model, frames, [slice(0, len(frames))])[0])  # the session as one long clip
    levels, lost = (x.reshape(3, LENGTH, 128).mean(dim=1) for x in (whole, cut))
    assert (levels[2] - levels[0]).norm() > 5 * (lost[2] - lost[0]).norm()


def held_back(normalise: str) -> float:
    """CCC on clips of a session that was not trained on, where the answer is how strong the grating is."""
    model, maker = small_model(online=False), torch.Generator().manual_seed(4)
    strengths = 0.2 + 0.8 * torch.rand(4, 12, generator=maker)
    clips = [slice(start, start + LENGTH) for start in range(0, 12 * LENGTH, LENGTH)]
    looks = [eyes.look(model, held(s, i), clips if normalise == "clip" else ()) for i, s in enumerate(strengths)]
    seen = torch.stack([x.reshape(12, LENGTH, 128) for x in looks])
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if not n.startswith("video.")], 1e-3)
    for _ in range(60):
        given = rollout.respond(
            model, [model.joined(seen[:3].flatten(0, 1), SILENCE)], LENGTH, torch.randn(1, 36, 128, generator=maker)
        )
        loss = ((given.attributes[..., 0] - strengths[:3].reshape(-1, 1)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        said = rollout.respond(model, [model.joined(seen[3], SILENCE[:12])], LENGTH, torch.zeros(1, 12, 128))
    guess, true = said.attributes[:, 0, :1].numpy(), strengths[3][:, None].numpy()
    return float(agreement.scores(agreement.sums(guess, true, true.mean(axis=0))).ccc[0])


def test_offline_a_speakers_level_is_followed_where_the_session_was_normalised_and_lost_where_the_clip_was() -> None:
    assert held_back("session") > 0.6
    assert abs(held_back("clip")) < 0.3


def test_draws_differ_and_the_diversity_term_drives_them_further_apart() -> None:
    spread = {}
    for weight in (0.0, 10.0):
        model = small_model(online=False)
        learn(model, replace(SMALL, diversity=weight), 80)
        one, other = said(model, [1, 2])
        spread[weight] = float(((one - other) ** 2).mean())
    assert spread[0.0] > 1e-6
    assert spread[10.0] > 5 * spread[0.0]


def test_the_offline_answer_does_not_know_the_order_of_what_it_saw() -> None:
    model, (_, cepstra) = small_model(online=False), seen(frames=12)
    behaviour = model.joined(torch.randn(1, 12, 128, generator=torch.Generator().manual_seed(0)), cepstra)
    mixed = behaviour[:, torch.randperm(12, generator=torch.Generator().manual_seed(0))]
    nothing, still = torch.zeros(1, 0, 58), torch.zeros(1, 128)
    one, other = (model.react(x, nothing, nothing[..., :25], still).attributes for x in (behaviour, mixed))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    changed = model.react(behaviour * 0.5, nothing, nothing[..., :25], still).attributes
    assert (changed - one).abs().max() > 1e-3


def test_a_frame_is_read_beside_its_own_reaction_so_that_the_newest_frames_can_be_told_from_the_past() -> None:
    model, maker = small_model(), torch.Generator().manual_seed(0)
    behaviour = torch.randn(1, 12, 128, generator=maker)
    face, attributes = torch.randn(1, 8, 58, generator=maker), torch.rand(1, 8, 25, generator=maker)

    def mean(order: list[int], reacted: list[int]) -> Tensor:
        return model.react(behaviour[:, order], face[:, reacted], attributes[:, reacted]).mean

    straight, past = list(range(12)), [3, 1, 2, 0, 7, 5, 6, 4]
    kept = mean(straight, straight[:8])
    torch.testing.assert_close(mean(past + straight[8:], past), kept, atol=1e-5, rtol=0)  # pairs, in any order
    assert (mean(straight, past) - kept).abs().max() > 1e-3  # other reactions to the same frames
    assert (mean([8, *straight[1:8], 0, 9, 10, 11], straight[:8]) - kept).abs().max() > 1e-3  # a past frame is now


def test_only_the_tokens_are_worked_out_and_they_are_what_the_whole_layer_gives() -> None:
    model, x = small_model(), torch.randn(2, 9, 128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(asked(model.encoder, x[:, :2], x), model.encoder(x)[:, :2])
