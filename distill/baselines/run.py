"""The training run of a baseline: `python -m distill.train --baseline transvae-online` comes here.

Eyes first, then steps, validation, resume points; at the end the weights, their card and the answers to the validation
split. A step's clips and noise depend on (seed, step) alone, so an interrupted run that goes on gives the same model.
Validation is shown, never chosen by: what ships are the last weights.

Not as published: eyes that first learn the speakers' units; first answers near the training mean; short tokens; a
warm-up, a cosine and a bound on the gradient (published: a constant rate of 1e-5, for some 20 000 steps of 4 clips).
Shapes: B clips, T frames, A attributes.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.baselines import eyes, folder, inputs, looks, predict, progress, rollout
from distill.baselines.clips import Clips
from distill.baselines.folder import Trained
from distill.baselines.loss import objective
from distill.baselines.transvae import TransVae
from distill.batches import known_mean
from distill.crew import Crew
from dyad import config as configuration
from dyad.provenance import atomic_path, run_card
from dyad.training_log import TrainingLog

if TYPE_CHECKING:
    from distill.train import Config

LARGEST_GRADIENT = 1.0
FIRST_ANSWERS = 0.1
"""The last layer's weights start this much smaller, so that the first answers lie near the training mean."""
FIRST_TOKENS = 0.02
"""The tokens start this much shorter: beside normal ones what was seen hardly moves the mean, and noise drowns it."""
USED = ("dataset", "eyes", "eyes_steps", "freeze_eyes", "steps", "batch", "clip_frames", "learning_rate",
        "weight_decay", "augment", "validate_every", "validate_sessions", "seed", "baseline", "transvae")  # fmt: skip
"""What a run must keep when it goes on; all else is of no use to a baseline, or may change."""


def train(config: Config) -> None:
    """Train to the end and answer the validation split."""
    trainer = Trainer(config)
    trainer.run()
    trained = trainer.ship()
    settings = trained.settings
    predict.write(trained, trainer.val_set, [], config.out, samples=settings.samples, seed=config.seed)
    when = trained.timing
    print(
        f"baseline: {config.out} ({trained.card['parameters']} parameters, answers {when.block_frames} frames at once)"
    )
    print(f"predictions: {config.out / 'predictions'} (horizons {list(when.horizons)})")


class Trainer:
    """One run."""

    def __init__(self, config: Config) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("a baseline trains in one process; start it without accelerate launch")
        looks.refuse(config)
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config, self.settings = config, config.transvae
        self.device = Crew("float32", config.device).device
        self.train_set, self.val_set = (
            inputs.open_split(config.dataset, split, self.settings, workers=config.workers)
            for split in ("train", "val")
        )
        self.usable = [m for m in self.train_set if m.n_frames >= config.clip_frames]
        if not self.usable:
            longest = max(m.n_frames for m in self.train_set)
            raise ValueError(
                f"no session is as long as a clip of {config.clip_frames} frames (longest: {longest}); "
                "lower clip_frames"
            )
        self.learned = inputs.learned(self.train_set)
        self.mean = known_mean([m.attributes for m in self.train_set])
        self.model = self._new_model().to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        if not self._resume():
            self._open_eyes()
            config.out.mkdir(parents=True, exist_ok=True)
            (config.out / "looks.safetensors").unlink(missing_ok=True)
            self._save_resume_point()
        self.model.video.requires_grad_(not config.freeze_eyes)
        self.source = Clips(self.usable, config, *looks.of_clips(self.model, self.usable, config))
        self.watched = self.val_set[: config.validate_sessions or None]
        self.watched_seen = looks.of_pieces(self._trained(), self.watched, config)
        configuration.save(config, config.out / "config.yaml")

    def _new_model(self) -> TransVae:
        """First answers near the training mean, cepstra standardised by the training sessions."""
        assert self.config.baseline is not None
        model = folder.build(self.config.baseline, self.settings)
        heard = np.concatenate([m.cepstra for m in self.train_set])
        last = model.attributes_out[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(FIRST_ANSWERS)
            model.tokens.mul_(FIRST_TOKENS)
            last.bias.copy_(torch.from_numpy(self.mean))
            model.cepstra_mean.copy_(torch.from_numpy(heard.mean(axis=0)))
            model.cepstra_scale.copy_(torch.from_numpy(np.maximum(heard.std(axis=0), 1e-3)))
        return model

    def _open_eyes(self) -> None:
        config = self.config
        if config.eyes is not None:
            folder.take_eyes(self.model, config.eyes, self.settings)
            return
        loss = eyes.open_eyes(self.model, self.usable, config.augment, steps=config.eyes_steps, seed=config.seed)
        if loss is not None:
            print(f"eyes: {config.eyes_steps} steps on single frames, loss {loss:.3f}")

    # ---- steps ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end."""
        config = self.config
        shown = ("loss", "skill", "ccc")
        with contextlib.closing(TrainingLog(config.out, self.step, config.steps, shown=shown)) as log:
            while self.step < config.steps:
                terms = self.train_step(self.clips(self.step))
                self.step += 1
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    terms |= self.validate()
                    self._save_resume_point()
                log.write(self.step, terms)

    def clips(self, step: int) -> list[Tensor]:
        """What a step learns from, see `Clips.draw`."""
        return [column.to(self.device) for column in self.source.draw(step)]

    def train_step(self, clips: list[Tensor]) -> dict[str, float]:
        """One step of AdamW; the loss's terms."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_now()
        shown, heard, attributes, face = clips
        known = rollout.behaviours(self.model, shown, heard, self.settings)
        first = rollout.respond(self.model, known, heard.shape[1], self._noise(len(known)))
        second = None
        if self.settings.diversity:
            with torch.no_grad():
                second = rollout.respond(self.model, known, heard.shape[1], self._noise(len(known)))
        terms = objective(first, second, attributes, face, self.settings)
        self.optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        if not bool(torch.isfinite(norm)):
            raise ValueError(f"the gradient became {float(norm)} at step {self.step}; lower --learning-rate")
        self.optimizer.step()
        return {name: float(term.detach()) for name, term in terms.items()}

    def _noise(self, windows: int) -> Tensor:
        return torch.randn(windows, self.config.batch, rollout.WIDTH).to(self.device)

    def rate_now(self) -> float:
        """Warm-up over a twentieth of the steps, then a cosine down to a fiftieth, as the student's."""
        done = self.step / self.config.steps
        rise = min(1.0, (done + 1 / self.config.steps) / 0.05)
        return self.config.learning_rate * rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))

    def validate(self) -> dict[str, float]:
        """How far it has come on the first held-out sessions."""
        return progress.scores(self._trained(), self.watched, self.watched_seen)

    # ---- resume and ship --------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {k: v for k, v in configuration.as_dict(self.config).items() if k in USED}

    def _path(self) -> Path:
        return self.config.out / "resume.pt"

    def _save_resume_point(self) -> None:
        content = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "config": self._settings(),
        }
        with atomic_path(self._path()) as part:
            torch.save(content, part)

    def _resume(self) -> bool:
        """Go on from the last resume point; whether there was one."""
        if not self._path().is_file():
            return False
        content: dict[str, Any] = torch.load(self._path(), weights_only=True, map_location=self.device)
        differing = [k for k, v in self._settings().items() if content["config"].get(k) != v]
        if differing:
            raise ValueError(
                f"{self._path()}: was begun with another {', '.join(differing)}; give another --out or remove it"
            )
        self.step = content["step"]
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        print(f"going on at step {self.step} of {self.config.steps}")
        return True

    def _trained(self, run: dict[str, Any] | None = None) -> Trained:
        assert self.config.baseline is not None
        return Trained(
            model=self.model.eval(),
            baseline=self.config.baseline,
            settings=self.settings,
            clip_frames=self.config.clip_frames,
            session_frames=max(m.n_frames for m in [*self.train_set, *self.val_set]),
            learned=self.learned,
            training_mean=self.mean,
            run=run or {},
        )

    def ship(self) -> Trained:
        """Write weights and card."""
        inputs_of = {"dataset": str(self.config.dataset)}
        card = run_card(command="distill.train", config=configuration.as_dict(self.config), inputs=inputs_of)
        return folder.save(self.config.out, self._trained(card))
