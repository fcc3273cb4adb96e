"""How well the peer of seed 002 does with our own eyes, clips and number of steps.

    python -m benchmarks.peer_quality --arms configs/ablation/distillation.yaml --dataset … --labels … --out …

The peer (two-way GRU over the sound, attention across the senses, all over the last 64 frames) reads the visual
features of the eyes that the arms of a seed share: its own ResNet18 would need thirty times their arithmetic. It trains
on hard labels, as its seed does, on the clips of the first arm, as many steps (quantisation-aware ones included), with
the same optimiser, rate and averaging; its targets are every eighth frame of a clip, or a step would cost eight times
as much. Neither rate nor stride was tuned for it. Then it is compared with the arms' runs, session by session. The
flags are those of `distill.ablate`.
"""

import copy
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.peers.resnet_gru import ResNetGru
from distill import comparison
from distill.ablate import Arms, Config
from distill.arms import Run, keep, read, score, settings, spec_of, train_all
from distill.batches import Batch, TrainingSession
from distill.eyes import look
from distill.objective import objective
from distill.trainer import Trainer
from distill.validate import predict
from dyad.config import load, parse, run_main
from dyad.provenance import write_json

Floats = NDArray[np.float32]
NAME = "seed 002's two-way GRU and attention, our eyes, hard labels"
QUESTION = "How does the peer do? Itself in float, the students through their INT8 engines, unless said."
STRIDE = 8


def cut(batch: Batch, frames: slice) -> Batch:
    """Targets of some frames of a batch."""
    names = ("prob", "act", "soft_prob", "soft_act", "uncertainty", "speaker_au", "present")
    return dataclasses.replace(batch, **{name: getattr(batch, name)[:, frames] for name in names})


def train(trainer: Trainer) -> ResNetGru:
    """The peer after as many steps as the arm takes; averaged as the student is."""
    torch.manual_seed(trainer.config.seed)
    peer = ResNetGru(trainer.spec, STRIDE)
    peer.heads.start_at(torch.from_numpy(trainer.data.mean), torch.from_numpy(trainer.data.rate))
    parameters = [p for n, p in peer.named_parameters() if not n.startswith("vision.")]
    averaged = copy.deepcopy(peer)
    optimizer = torch.optim.AdamW(parameters, weight_decay=trainer.config.weight_decay)
    for step in range(trainer.config.steps):
        trainer.step = step
        batch = trainer.data.batch(step)
        peer.train()
        for group in optimizer.param_groups:
            group["lr"] = trainer.rate_now()
        logits, _ = peer.from_features(batch.seen, batch.audio, batch.present, peer.init_state(len(batch.seen)))
        loss = objective(logits, cut(batch, peer.predicted), None, trainer.frequency, trainer.config.loss)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(trainer.config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for mine, theirs in zip(averaged.parameters(), peer.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)
    return averaged.eval()


def run_of(config: Config, arms: Arms, seed: int) -> Run:
    """The peer of one seed, trained and scored on the held-out sessions; kept beside the arms' runs."""
    kept = config.out / "peer" / str(seed) / "scores.npz"
    if not kept.is_file():
        arm = next(iter(arms.arms))
        with tempfile.TemporaryDirectory() as folder:
            given = settings(config, arms, arm, seed)
            steps = given.steps + given.qat_steps
            plain = dataclasses.replace(given, out=Path(folder), steps=steps, qat_steps=0, device="cpu")
            trainer = Trainer(plain, spec_of(plain))
        peer = train(trainer)

        def said(session: TrainingSession) -> tuple[Floats, Floats]:
            return predict(peer, session, seen=look(trainer.model, session, trainer.data.kept_in(session)))

        keep(kept, *score(trainer, said))
    return read(kept, NAME, seed)


def main(argv: list[str] | None = None) -> int:
    """Train the peers, then compare them with the arms; the peer stands first, so that differences are to it."""
    config = parse(Config, argv, prog="python -m benchmarks.peer_quality", description=(__doc__ or "").split("\n")[0])
    arms = load(Arms, config.arms)
    torch.set_num_threads(config.threads)
    runs = train_all(config, arms)
    peers = [run_of(config, arms, seed) for seed in config.seeds]
    made = comparison.compare(config, arms, [*peers, *runs], QUESTION)
    print(made.table())
    if config.results is not None:
        made.write_results(config.results)
    if config.report is not None:
        comparison.put_between(config.report, "peer", made.table())
    write_json(config.out / "peer" / "results.json", [dataclasses.asdict(row) for row in made.rows])
    print(json.dumps([{"arm": row.arm, **row.value} for row in made.rows]))
    return 0


if __name__ == "__main__":
    run_main(main)
