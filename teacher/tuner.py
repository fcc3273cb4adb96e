"""The tuning run: windows, loss, validation, early stop and resume.

Loss: cross-entropy on probabilities and activations, where they are annotated, plus a CCC term; no focal term and no
frequency weights by default, since they cost calibration. Each step's windows depend on (seed, step) alone.
Shapes: B windows, T frames, A units.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from dyad import config as configuration
from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.layouts import processed
from dyad.metrics import agreement
from dyad.provenance import atomic_path, run_card, sha256_bytes
from dyad.session import Session
from teacher import adapter, dataset
from teacher.qwen_omni import MediaBatch, OmniTeacher, add_lora, load_base
from teacher.windows import SpeakerMedia, cut, starts

if TYPE_CHECKING:
    from teacher.tune import Config

Pair = tuple[Session, SpeakerMedia]


def loss_of(logits: Tensor, prob: Tensor, act: Tensor, ccc_weight: float) -> Tensor:
    """Masked cross-entropy on both read-outs plus CCC; `logits` [B, T, A, 2], targets [B, T, A] with NaN unknown."""
    target = torch.stack([prob, act], dim=-1)
    both_known, target = ~torch.isnan(target), torch.nan_to_num(target)
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = ((ce * both_known).sum(dim=(0, 1, 2)) / both_known.sum(dim=(0, 1, 2)).clamp(min=1)).sum()
    known = both_known[..., 0]
    p, y, n = torch.sigmoid(logits[..., 0]), target[..., 0], known.sum(dim=(0, 1)).clamp(min=1)
    mp, my = ((v * known).sum(dim=(0, 1)) / n for v in (p, y))
    dp, dy = (p - mp) * known, (y - my) * known
    vp, vy, cov = ((v).sum(dim=(0, 1)) / n for v in (dp * dp, dy * dy, dp * dy))
    ccc = 2 * cov / (vp + vy + (mp - my) ** 2 + 1e-6)
    varies = vy > 1e-5
    return loss + ccc_weight * ((1 - ccc) * varies).sum() / varies.sum().clamp(min=1)


def _known_mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over time [A] of [T, A] where it is annotated; 0 for a unit that never is."""
    known = ~np.isnan(values)
    return (np.nan_to_num(values).sum(axis=0) / np.maximum(known.sum(axis=0), 1)).astype(np.float32)


class Tuner:
    """One run of `teacher.tune`."""

    def __init__(self, config: Config) -> None:
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.device = config, adapter.device()
        config.out.mkdir(parents=True, exist_ok=True)
        configuration.save(config, config.out / "config.yaml")
        self.train_set, self.val_set = (self._open(split) for split in processed.SPLITS)
        self.share = self._shares()
        thinker, processor, source = load_base(config.model, config.out)
        thinker = add_lora(
            thinker,
            rank=config.lora_rank,
            alpha=2 * config.lora_rank,
            dropout=config.dropout,
            towers=config.lora_towers,
        )
        self.read_out = {
            "units": len(SEED17.units),
            "width": config.width,
            "span": config.span_frames,
            "dropout": config.dropout,
        }
        self.source = source
        self.teacher = OmniTeacher(thinker, processor, config.window, adapter.prompt_text(), self.read_out)
        if torch.cuda.is_available():
            thinker.gradient_checkpointing_enable()
        self.mean, rate = (self._mean(k) for k in ("prob", "act"))
        self.teacher.read_out.start_at(torch.from_numpy(self.mean), torch.from_numpy(rate))
        self.teacher.to(self.device)
        self.optimizer = torch.optim.AdamW(self.teacher.trainable(), lr=config.learning_rate, weight_decay=0.01)
        self.step, self.best, self.waited, self.history = 0, -math.inf, 0, []
        self._resume()

    def _open(self, split: str) -> list[Pair]:
        sessions = processed.load(self.config.dataset, split)
        ready, failed = dataset.read_all(self.config.dataset, sessions, self.config.window)
        for session_id, reason in failed.items():
            print(f"left out {session_id}: {reason}")
        if not ready:
            raise ValueError(f"{self.config.dataset}/processed/{split}: no session could be decoded; see above")
        print(f"{split}: {len(ready)} sessions, {len(failed)} left out")
        return ready

    def _mean(self, kind: str) -> NDArray[np.float32]:
        return _known_mean(np.concatenate([getattr(s, kind) for s, _ in self.train_set]))

    def _shares(self) -> NDArray[np.float64]:
        """How often each session is drawn: more when it shows rare units."""
        rates = np.stack([_known_mean(s.act) for s, _ in self.train_set])
        rarity = 1 / np.maximum(rates.mean(axis=0), 1e-3)
        weight = 1.0 + (rates * rarity).mean(axis=1)
        return weight / weight.sum()

    # ---- windows ----------------------------------------------------------------------------------------------

    def _targets(self, session: Session, start: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        out = np.full((2, self.config.window.frames, len(SEED17.units)), np.nan, np.float32)
        for k, values in enumerate((session.prob, session.act)):
            piece = values[start : start + self.config.window.frames]
            out[k, : len(piece)] = piece
        return out[0], out[1]

    def _pack(self, picks: list[tuple[Pair, int]]) -> tuple[MediaBatch, Tensor, Tensor]:
        cuts = [cut(speaker, start, self.config.window) for (_, speaker), start in picks]
        targets = [self._targets(session, start) for (session, _), start in picks]
        batch = self.teacher.pack(np.stack([p for p, _ in cuts]), np.stack([s for _, s in cuts]))
        prob, act = (torch.from_numpy(np.stack(k)).to(self.device) for k in zip(*targets, strict=True))
        return batch.to(self.device), prob, act

    def _draw(self, step: int, part: int) -> list[tuple[Pair, int]]:
        rng = np.random.default_rng([self.config.seed, step, part])
        picks = rng.choice(len(self.train_set), self.config.batch, p=self.share)
        grid = FPS // self.config.window.video_fps * 2
        out = []
        for i in picks:
            room = max(self.train_set[i][1].n_frames - self.config.window.frames, 0) // grid
            out.append((self.train_set[i], int(rng.integers(0, room + 1)) * grid))
        return out

    # ---- steps ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Tune until the steps are done or patience runs out."""
        from torch.utils.tensorboard import SummaryWriter

        config, board = self.config, SummaryWriter(str(self.config.out / "tensorboard"))
        if self.step == 0:
            self.history.append({"step": 0, **self.validate()})
        progress = tqdm(total=config.steps, initial=self.step, unit="step", mininterval=2.0)
        with (config.out / "metrics.jsonl").open("a", encoding="utf8") as log:
            while self.step < config.steps and self.waited < config.patience:
                record: dict[str, Any] = {"loss": self._train_step()}
                self.step += 1
                progress.update()
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    record |= self.validate()
                    self._keep_best(record)
                    progress.set_postfix({k: f"{v:.3f}" for k, v in record.items()})
                log.write(json.dumps({"step": self.step, **record}) + "\n")
                log.flush()
                for name, value in record.items():
                    board.add_scalar(name, value, self.step)
        progress.close()
        board.close()

    def _train_step(self) -> float:
        config, total = self.config, 0.0
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        self.teacher.train()
        warm = min(1.0, (self.step + 1) / max(config.steps * 0.05, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = (
                config.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * self.step / config.steps)))
            )
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(config.accumulate):
            batch, prob, act = self._pack(self._draw(self.step, part))
            loss = loss_of(self.teacher(batch), prob, act, config.ccc) / config.accumulate
            if not torch.isfinite(loss):
                raise ValueError(f"loss became {loss.item()} at step {self.step}; lower --learning-rate and run again")
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.teacher.trainable(), 1.0)
        self.optimizer.step()
        return total

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss, skill over the mean predictor and macro CCC on the validation sessions."""
        self.teacher.eval()
        frames, losses, totals = self.config.window.frames, [], []
        for pair in self.val_set:
            for start in starts(pair[1].n_frames, self.config.window, frames):
                batch, prob, act = self._pack([(pair, start)])
                logits = self.teacher(batch)
                losses.append(float(loss_of(logits, prob, act, self.config.ccc)))
                guess = torch.sigmoid(logits[0, :, :, 0]).cpu().numpy()
                totals.append(agreement.sums(guess, prob[0].cpu().numpy(), self.mean))
        scores = agreement.scores(np.sum(totals, axis=0))
        ccc, _ = agreement.macro(scores.ccc)
        return {
            "val_loss": float(np.mean(losses)),
            "skill": float(scores.total_skill),
            "ccc": 0.0 if math.isnan(ccc) else ccc,
        }

    # ---- keep and go on ---------------------------------------------------------------------------------------

    def _contract(self) -> dict[str, Any]:
        return {
            "model": self.config.model,
            "base_hash": adapter.base_hash(self.source),
            "au_names": list(SEED17.units),
            "fps": FPS,
            "window": configuration.as_dict(self.config.window),
            "read_out": self.read_out,
            "prompt_hash": sha256_bytes(adapter.prompt_text().encode())[:16],
        }

    def _keep_best(self, record: dict[str, float]) -> None:
        self.history.append({"step": self.step, **record})
        if record["ccc"] > self.best:
            self.best, self.waited = record["ccc"], 0
            card = run_card(command="teacher.tune", config=configuration.as_dict(self.config))
            adapter.save(self.config.out, self.teacher, self._contract(), card | {"validation": self.history})
        else:
            self.waited += 1
        with atomic_path(self.config.out / "resume.pt") as part:
            torch.save(
                {
                    "step": self.step,
                    "best": self.best,
                    "waited": self.waited,
                    "history": self.history,
                    "weights": [p.detach().cpu() for p in self.teacher.trainable()],
                    "optimizer": self.optimizer.state_dict(),
                    "config": self._settings(),
                },
                part,
            )

    def _settings(self) -> dict[str, Any]:
        """What a run must keep when it goes on: all but where it writes, how long, and how many cores it takes."""
        aside = ("out", "threads", "patience", "steps")
        return {k: v for k, v in configuration.as_dict(self.config).items() if k not in aside}

    def _resume(self) -> None:
        path = self.config.out / "resume.pt"
        if not path.is_file():
            return
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        mine = self.teacher.trainable()
        if [w.shape for w in content["weights"]] != [p.shape for p in mine]:
            raise ValueError(f"{path}: was begun with another model or read-out; give another --out or remove it")
        with torch.no_grad():
            for parameter, kept in zip(mine, content["weights"], strict=True):
                parameter.copy_(kept)
        differing = [k for k, v in self._settings().items() if content["config"].get(k) != v]
        if differing:
            raise ValueError(f"{path}: was begun with another {', '.join(differing)}; give another --out or remove it")
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.best = content["step"], content["best"]
        self.waited, self.history = content["waited"], content["history"]
        log = self.config.out / "metrics.jsonl"  # steps after the resume point are done, and told, again
        if log.is_file():
            lines = log.read_text(encoding="utf8").splitlines()[: self.step]
            with atomic_path(log) as part:
                part.write_text("".join(line + "\n" for line in lines), encoding="utf8")
        print(f"going on at step {self.step} of {self.config.steps}")

    def finish(self) -> None:
        """Tell what tuning brought."""
        first, best = self.history[0], max(self.history[1:] or self.history, key=lambda r: r["ccc"])
        print(f"untuned: loss {first['val_loss']:.3f}, skill {first['skill']:.3f}, macro CCC {first['ccc']:.3f}")
        print(f"tuned:   loss {best['val_loss']:.3f}, skill {best['skill']:.3f}, macro CCC {best['ccc']:.3f}")
        print(f"teacher: {self.config.out}")
