"""How well the peer of seed 002 does with our own eyes, clips and number of steps.

    python -m benchmarks.peer_quality --arms configs/ablation/distillation.yaml --dataset … --labels … --out …

The peer (two-way GRU over the sound, attention across the senses, all over the last 64 frames) reads the visual
features of the eyes that the arms of a seed share: its own ResNet18 would need thirty times their arithmetic. It trains
on hard labels, as its seed does, on the clips of the first arm, as many steps, with the same optimiser and averaging;
its targets are every eighth frame of a clip, or a step would cost eight times as much. Then it is compared with the
arms' finished runs, session by session. The flags are those of `distill.ablate`.
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
from distill.arms import Run, predict, score, settings, spec_of, train_all
from distill.batches import Batch
from distill.eyes import look
from distill.objective import objective
from distill.trainer import Trainer
from dyad.config import load, parse, run_main
from dyad.provenance import write_json

NAME = "seed 002's two-way GRU and attention, our eyes, hard labels"
STRIDE = 8


def cut(batch: Batch, frames: slice) -> Batch:
    """Targets of some frames of a batch."""
    names = ("prob", "act", "soft_prob", "soft_act", "uncertainty", "speaker_au", "present")
    return dataclasses.replace(batch, **{name: getattr(batch, name)[:, frames] for name in names})


def train(trainer: Trainer) -> ResNetGru:
    """The peer after as many steps as the arm takes; averaged as the student is."""
    torch.manual_seed(trainer.config.seed)
    peer = ResNetGru(trainer.spec, STRIDE)
    peer.heads.start_at(torch.from_numpy(trainer.mean), torch.from_numpy(trainer.rate))
    parameters = [p for n, p in peer.named_parameters() if not n.startswith("vision.")]
    averaged = copy.deepcopy(peer)
    optimizer = torch.optim.AdamW(parameters, weight_decay=trainer.config.weight_decay)
    for step in range(trainer.config.steps):
        trainer.step = step
        batch = trainer.clips(step)
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
            plain = dataclasses.replace(settings(config, arms, arm, seed), out=Path(folder), qat_steps=0)
            trainer = Trainer(plain, spec_of(plain))
        peer = train(trainer)

        def said(session: object) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            return predict(peer, session, look(trainer.model, session, trainer.kept_in(session)))  # type: ignore[arg-type]

        sums, precision = score(trainer, said)  # type: ignore[arg-type]
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, sums=sums, precision=precision)
    with np.load(kept) as content:
        return Run(NAME, seed, content["sums"], content["precision"])


def main(argv: list[str] | None = None) -> int:
    """Train the peers, then compare them with the arms; the peer stands first, so that differences are to it."""
    config = parse(Config, argv, prog="python -m benchmarks.peer_quality", description=(__doc__ or "").split("\n")[0])
    arms = load(Arms, config.arms)
    torch.set_num_threads(config.threads)
    peers = [run_of(config, arms, seed) for seed in config.seeds]
    made = comparison.compare(config, arms, [*peers, *train_all(config, arms)])
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
