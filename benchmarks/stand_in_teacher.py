"""A teacher for synthetic dyads that is clearly better than any student: it is told what the speaker did.

    python -m benchmarks.stand_in_teacher --dataset out/dyads --extra out/speakers --out out/labels

The released 7-billion teacher brings an understanding of faces and speech that no toy can learn from an hour of
drawings. This one stands in for it: instead of pixels and sound it reads the speaker's true action units and events (a
laugh, a pause, a sad sentence), both past and future, never the listener. What it does learn, from the same annotated
listeners as the student, is how people answer. It never labels a session that it was trained on: networks trained
without a third of the sessions label that third; else the labels would repeat the annotations' own noise, the leak
that makes soft labels worthless. Speakers without annotated listeners get the mean of all networks.

Writes OUT/labels, OUT/extra (soft-label stores) and, for comparison, OUT/seen (labelled by networks that were trained
on these very sessions) and OUT/perfect (the expectation over listeners, from the generator itself).
Shapes: B clips, T frames, F inputs, A units, C channels.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dyad.action_units import SEED17
from dyad.config import as_dict, parse, run_main
from dyad.layouts import processed
from dyad.metrics import agreement
from dyad.provenance import run_card, sha256_bytes
from dyad.session import Session
from dyad.soft_labels import SoftLabelStore
from dyad.synthetic.bound import read_events
from dyad.synthetic.listener import Persona, activation, hysteresis, noise, probability, react
from dyad.synthetic.script import KINDS

Floats = NDArray[np.float32]
DILATIONS = (1, 2, 4, 8, 16, 32)
"""Frames between the five taps of each layer."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the sessions are, and how long each network trains."""

    dataset: Path
    """Synthetic dyads: the training sessions' listeners are learned from."""
    out: Path
    """Folder of the soft-label stores."""
    extra: Path | None = None
    """Synthetic speakers to label besides; their listeners are not looked at."""
    steps: int = 300
    """Training steps of each network."""
    folds: int = 3
    """Parts of the sessions; each is labelled by networks that were trained without it."""
    members: int = 3
    """Networks per part; their mean is the label, their spread its uncertainty."""
    seed: int = 0
    """Of all networks."""
    threads: int = 2
    """Processor threads of torch."""

    def __post_init__(self) -> None:
        """Refuse what labels nothing."""
        if self.steps < 1 or self.folds < 2 or self.members < 1:
            raise ValueError("steps ≥ 1, folds ≥ 2 and members ≥ 1 are needed")


def inputs_of(root: Path, session_id: str) -> Floats:
    """What the speaker did, [T, F]: true action units, and every kind of event from onset to its end."""
    path = processed.root_of(root) / "truth" / f"{session_id}.npz"
    events, n = read_events(path)
    with np.load(path, allow_pickle=False) as content:
        units = content["speaker_au"].astype(np.float32)
    tracks = np.zeros((n, 2 * len(KINDS)), np.float32)
    for event in events:
        kind = KINDS.index(event.kind)
        tracks[event.onset : event.onset + max(event.hold_frames, 1), kind] = event.amplitude
        tracks[event.onset : event.onset + 2, len(KINDS) + kind] = 1
    return np.concatenate([units, tracks], axis=1)


class Teacher(nn.Module):
    """Centred dilated convolutions: 4 s of past and 4 s of future around each frame."""

    def __init__(self, inputs: int, units: int, width: int = 96) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(nn.Linear(5 * width, width) for _ in DILATIONS)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in DILATIONS)
        self.drop = nn.Dropout(0.2)
        self.leave = nn.Linear(width, 2 * units)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, F] → log-odds [B, T, A, 2]."""
        y, frames = self.enter(x), x.shape[1]
        for layer, norm, reach in zip(self.layers, self.norms, DILATIONS, strict=True):
            padded = F.pad(norm(y), (0, 0, 2 * reach, 2 * reach))
            around = torch.cat([padded[:, k * reach : k * reach + frames] for k in range(5)], dim=2)
            y = y + self.drop(F.relu(layer(around)))
        return self.leave(y).reshape(*x.shape[:2], -1, 2)


def train(pairs: Sequence[tuple[Floats, Session]], steps: int, seed: int, clip: int = 300, batch: int = 16) -> Teacher:
    """A teacher of these sessions; cross-entropy on annotated probabilities and activations."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 5])
    model = Teacher(pairs[0][0].shape[1], len(SEED17.units))
    rates = np.stack([np.concatenate([getattr(s, k) for _, s in pairs]).mean(axis=0) for k in ("prob", "act")], -1)
    with torch.no_grad():
        model.leave.weight.mul_(0.1)
        model.leave.bias.copy_(torch.logit(torch.from_numpy(rates).clamp(1e-3, 1 - 1e-3)).flatten())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        picks = [pairs[int(i)] for i in rng.integers(len(pairs), size=batch)]
        starts = [int(rng.integers(max(len(x) - clip, 0) + 1)) for x, _ in picks]
        x = torch.from_numpy(np.stack([x[s : s + clip] for (x, _), s in zip(picks, starts, strict=True)]))
        y = np.stack([np.stack([t.prob, t.act], -1)[s : s + clip] for (_, t), s in zip(picks, starts, strict=True)])
        loss = F.binary_cross_entropy_with_logits(model(x), torch.from_numpy(y.astype(np.float32)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def say(model: Teacher, x: Floats) -> Floats:
    """Log-odds [T, A, 2] of a session."""
    return model(torch.from_numpy(x)[None])[0].numpy()


def perfect_answer(root: Path, session_id: str, listeners: int = 100, seed: int = 1) -> Floats:
    """Log-odds [T, A, 2] of the mean probability and mean activation over listeners who saw this speaker."""
    events, n = read_events(processed.root_of(root) / "truth" / f"{session_id}.npz")
    curves = []
    for i in range(listeners):
        rng = np.random.default_rng([seed, i])
        persona = Persona.draw(rng)
        wobble = noise(n, rng)
        curves.append(probability(activation(react(events, n, persona, rng), n), persona, wobble))
    all_of_them = np.stack(curves, axis=1)  # [T, listeners, A]
    active = hysteresis(all_of_them.reshape(n, -1)).reshape(all_of_them.shape)
    mean = np.stack([all_of_them.mean(axis=1), active.mean(axis=1)], -1)
    mean = np.clip(mean, 1e-4, 1 - 1e-4)
    return np.log(mean / (1 - mean)).astype(np.float32)


def _mean_prob(said: Sequence[Floats]) -> Floats:
    return np.mean([1 / (1 + np.exp(-s[..., 0])) for s in said], axis=0).astype(np.float32)


def _write(store: SoftLabelStore, session_id: str, said: Sequence[Floats]) -> None:
    """One session from the log-odds of one teacher or several; their spread is the uncertainty."""
    prob = 1 / (1 + np.exp(-np.stack([s[..., 0] for s in said])))
    act = np.mean([s[..., 1] for s in said], axis=0)
    spread = prob.std(axis=0) if len(said) > 1 else np.zeros(prob.shape[1:])
    store.write(session_id, prob.mean(axis=0).astype(np.float32), act.astype(np.float32), spread.astype(np.float32))


def _score(said: Sequence[tuple[Floats, Session]], mean: Floats) -> dict[str, float]:
    totals = np.sum([agreement.sums(prob, s.prob, mean) for prob, s in said], axis=0)
    found = agreement.scores(totals)
    return {"macro_ccc": round(agreement.macro(found.ccc)[0], 4), "skill": round(float(found.total_skill), 4)}


def main(argv: list[str] | None = None) -> int:
    """Train the networks, label, and say how good the labels are where nobody trained on them."""
    config = parse(
        Config, argv, prog="python -m benchmarks.stand_in_teacher", description=(__doc__ or "").split("\n")[0]
    )
    torch.set_num_threads(config.threads)
    annotated = processed.load(config.dataset, "train", au_names=SEED17.units)
    held_out = processed.load(config.dataset, "val", au_names=SEED17.units)
    pairs = [(inputs_of(config.dataset, s.id), s) for s in annotated]
    mean = np.concatenate([s.prob for s in annotated]).mean(axis=0)
    card = run_card(command="benchmarks/stand_in_teacher.py", config=as_dict(config))
    name = sha256_bytes(repr(as_dict(config)).encode())[:16]

    def open_store(folder: str) -> SoftLabelStore:
        return SoftLabelStore.create(config.out / folder, au_names=SEED17.units, teacher_hash=name, run=card)

    teachers: list[Teacher] = []
    labels = open_store("labels")
    unseen: list[tuple[Floats, Session]] = []
    for fold in range(config.folds):
        kept = [pair for i, pair in enumerate(pairs) if i % config.folds != fold]
        mine = [train(kept, config.steps, config.seed * 1000 + 10 * fold + k) for k in range(config.members)]
        for x, session in pairs[fold :: config.folds]:
            said = [say(model, x) for model in mine]
            _write(labels, session.id, said)
            unseen.append((_mean_prob(said), session))
        teachers += mine
        print(f"part {fold + 1} of {config.folds}", flush=True)
    seen, perfect = open_store("seen"), open_store("perfect")
    whole = [train(pairs, config.steps, config.seed * 1000 + 900 + k) for k in range(config.members)]
    for x, session in pairs:
        _write(seen, session.id, [say(model, x) for model in whole])
        _write(perfect, session.id, [perfect_answer(config.dataset, session.id)])
    if config.extra is not None:
        extra = open_store("extra")
        for session in processed.load(config.extra, "train", au_names=SEED17.units):
            x = inputs_of(config.extra, session.id)
            _write(extra, session.id, [say(model, x) for model in teachers])
    tested = []
    for session in held_out:
        x = inputs_of(config.dataset, session.id)
        tested.append((_mean_prob([say(model, x) for model in teachers]), session))
    result: dict[str, Any] = {
        "own_sessions_cross_fitted": _score(unseen, mean),
        "held_out_sessions_all_networks": _score(tested, mean),
        "labelled": {k: len(open_store(k).ids()) for k in ("labels", "seen", "perfect")},
    }
    for key, value in result.items():
        print(f"{key:36s} {value}")
    print(json.dumps({**result, "run": card}))
    return 0


if __name__ == "__main__":
    run_main(main)
