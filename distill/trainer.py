"""The training run: steps, validation, resume points, and what is shipped at the end.

Each step's clips, augmentations and dropout depend on (seed, step) alone: an interrupted run that goes on gives the
same student as one that was never stopped.
"""

from __future__ import annotations

import contextlib
import copy
import math
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from distill.batches import Batch
from distill.crew import Crew
from distill.data import TrainingData
from distill.eyes import look, open_eyes, take_eyes
from distill.objective import objective
from distill.validate import validate
from dyad import config as configuration
from dyad.provenance import atomic_path, run_card
from dyad.soft_labels import SoftLabelStore
from dyad.training_log import TrainingLog
from student import calibration, checkpoint
from student.model import Student
from student.quantization import layout_of
from student.quantization import quantize as rebuild
from student.spec import StudentSpec

if TYPE_CHECKING:
    from distill.train import Config


class Trainer:
    """One run of `distill.train`."""

    def __init__(self, config: Config, spec: StudentSpec) -> None:
        torch.set_num_threads(config.threads)
        self.crew = Crew(config.precision, config.device)
        torch.manual_seed(config.seed)
        self.config, self.spec = config, spec
        self.data = TrainingData(config, spec, self.crew)
        mean, rate = torch.from_numpy(self.data.mean), torch.from_numpy(self.data.rate)
        self.frequency = rate.to(self.crew.device)
        self.model = Student(spec)
        self.speaker_head = nn.Linear(spec.d_model, len(spec.au_names)).to(self.crew.device)
        self.model.heads.start_at(mean, rate)
        self.model.vision.calibrate(self.data.batch(0, 1).frame_u8[:, ::8].flatten(0, 1)[:128])
        self.model.to(self.crew.device)
        self.averaged = copy.deepcopy(self.model)
        self.step = 0
        self.optimizer = self._new_optimizer()
        resumed = self._resume()  # which may refuse: only then does this run's configuration replace what lies there
        if self.crew.leads:
            config.out.mkdir(parents=True, exist_ok=True)
            configuration.save(config, config.out / "config.yaml")
        if not resumed:
            self._open_eyes()
        if config.freeze_eyes and self.step < config.steps:
            self.model.vision.requires_grad_(False)
            with self.crew.lead_first():
                self.data.seen = [look(self.model, s, self.data.kept_in(s)) for s in self.data.train]

    # ---- steps ------------------------------------------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """Float steps and quantisation-aware ones."""
        return self.config.steps + self.config.qat_steps

    def run(self) -> None:
        """Train to the end."""
        with contextlib.ExitStack() as stack:
            log = None
            if self.crew.leads:
                log = TrainingLog(self.config.out, self.step, self.total_steps, shown=("loss", "skill_h4", "ccc_h4"))
                stack.callback(log.close)
            for batch in self.data.batches(self.step, self.total_steps):
                if self.step == self.config.steps:
                    self._begin_quantisation()
                terms = self._train_step(batch.to(self.crew.device))
                self.step += 1
                if log is None:
                    continue
                if self.step % self.config.validate_every == 0 or self.step in (self.config.steps, self.total_steps):
                    terms |= self._validate()
                    self._save_resume_point()
                log.write(self.step, terms)
        self.crew.wait()

    def _validate(self) -> dict[str, float]:
        return validate(self.averaged, self.data.val[: self.config.validate_sessions or None], self.data.mean)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        torch.manual_seed(self.config.seed * 1_000_003 + self.step + 7919 * self.crew.rank)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_now()
        with self.crew.autocast(quantising=self.step >= self.config.steps):
            seen = batch.seen if batch.seen.shape[-1] else self.model.visual_features(batch.frame_u8)
            state = self.model.init_state(len(seen))
            logits, _ = self.model.from_features(seen, batch.audio, batch.present, state)
            blind = bool(torch.isnan(batch.speaker_au).all()) or bool(batch.seen.shape[-1]) or not self._eyes_train
            speaker = None if blind else self.speaker_head(torch.relu(seen)).float()
        terms = objective(logits.float(), batch, speaker, self.frequency, self.config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        self.crew.average(self._parameters())
        norm = nn.utils.clip_grad_norm_(self._parameters(), 1.0)
        for what, value in (("loss", self.crew.total(terms["loss"])), ("gradient", norm)):
            if not torch.isfinite(value):
                self._stop(what, value.item())
        self.optimizer.step()
        self.average()
        return {k: float(v.detach()) for k, v in terms.items()}

    @property
    def _eyes_train(self) -> bool:
        """Whether the present step changes the eyes."""
        return self.config.qat_eyes if self.step >= self.config.steps else not self.config.freeze_eyes

    def _stop(self, what: str, value: float) -> NoReturn:
        """Keep the averaged weights of before this step, and say where they are."""
        kept = self.config.out / "last_good"
        if self.crew.leads and self.step > 0:
            checkpoint.save(kept, self.averaged, self._card())
        self.crew.wait()  # a process that ends in an error ends the others: the first one writes before that
        where = f"the last good checkpoint is kept in {kept}; " if self.step > 0 else ""
        raise ValueError(
            f"{what} became {value} at step {self.step}; {where}lower --learning-rate, give another --out and run again"
        )

    def _parameters(self) -> list[Tensor]:
        return [*self.model.parameters(), *self.speaker_head.parameters()]  # frozen ones get no gradient and stay

    def _new_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self._parameters(), lr=1e-3, weight_decay=self.config.weight_decay)

    def rate_now(self) -> float:
        """Warm-up over a twentieth of the phase, then a cosine down to a fiftieth."""
        quantising = self.step >= self.config.steps
        peak = self.config.qat_learning_rate if quantising else self.config.learning_rate
        length = self.config.qat_steps if quantising else self.config.steps
        done = (self.step - self.config.steps if quantising else self.step) / max(length, 1)
        return (
            peak * min(1.0, (done + 1 / max(length, 1)) / 0.05) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        )

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged weights towards the present ones."""
        decay = min(self.config.ema, (self.step + 1) / (self.step + 10))
        for mine, theirs in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)

    def _open_eyes(self) -> None:
        """The first phase: eyes on single frames; a constant of the run, since it depends on the seed alone."""
        if self.config.eyes is not None:
            take_eyes(self.model, self.config.eyes)
            self.averaged = copy.deepcopy(self.model)
            return
        loss = open_eyes(
            self.model.vision,
            self.speaker_head,
            self.data.train,
            self.config.augment,
            self.crew,
            steps=self.config.eyes_steps,
            seed=self.config.seed,
        )
        if loss is not None and self.crew.leads:
            print(f"eyes: {self.config.eyes_steps} steps on single frames, loss {loss:.3f}")
        self.averaged = copy.deepcopy(self.model)

    def _begin_quantisation(self) -> None:
        """Ship the float parent, then go on from its averaged weights with fake quantisation."""
        if self.crew.leads:
            checkpoint.save(self.config.out / "float", self.averaged, self._card())
        seen = [self.data.batch(k, 2).to(self.crew.device) for k in range(4)]
        calibration.prepare(self.averaged, [(b.frame_u8, b.audio, b.present) for b in seen])
        self.averaged.vision.requires_grad_(self.config.qat_eyes)
        self.model = copy.deepcopy(self.averaged)
        self.optimizer = self._new_optimizer()

    # ---- resume and ship --------------------------------------------------------------------------------------

    def _save_resume_point(self) -> None:
        content = {
            "step": self.step,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "speaker_head": self.speaker_head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "layout": layout_of(self.model),
            "spec": self.spec.to_dict(),
            "config": self._settings(),
        }
        with atomic_path(self.config.out / "resume.pt") as part:
            torch.save(content, part)

    def _settings(self) -> dict[str, Any]:
        """What a run must keep when it goes on: neither where it writes and how many cores it takes, nor baselines."""
        aside = ("out", "threads", "workers", "device", "baseline", "transvae")
        kept = {k: v for k, v in configuration.as_dict(self.config).items() if k not in aside}
        return kept | {"number of processes": self.crew.size}

    def _resume(self) -> bool:
        """Go on from the last resume point; whether there was one."""
        path = self.config.out / "resume.pt"
        if not path.is_file():
            return False
        content: dict[str, Any] = torch.load(path, weights_only=True, map_location=self.crew.device)
        if content["spec"] != self.spec.to_dict():
            raise ValueError(f"{path}: was begun with another student; give another --out or remove the folder")
        differing = [k for k, v in self._settings().items() if content["config"].get(k) != v]
        if differing:
            raise ValueError(f"{path}: was begun with another {', '.join(differing)}; give another --out or remove it")
        self.step = content["step"]
        for model in (self.model, self.averaged):
            rebuild(model, content["layout"])
        self.model.load_state_dict(content["model"])
        self.averaged.load_state_dict(content["averaged"])
        self.speaker_head.load_state_dict(content["speaker_head"])
        self.optimizer = self._new_optimizer()
        self.optimizer.load_state_dict(content["optimizer"])
        if self.step >= self.config.steps:
            self.model.vision.requires_grad_(self.config.qat_eyes)
        if self.crew.leads:
            print(f"going on at step {self.step} of {self.total_steps}")
        return True

    def _card(self) -> dict[str, Any]:
        inputs = {"dataset": str(self.config.dataset)}
        if self.config.labels:
            inputs["teacher"] = SoftLabelStore.open(self.config.labels).teacher_hash
        card = run_card(command="distill.train", config=configuration.as_dict(self.config), inputs=inputs)
        return card | {
            "validation": self._validate(),
            "training_mean": self.data.mean.tolist(),
        }

    def ship(self) -> None:
        """Write the checkpoint that goes to the engine."""
        checkpoint.save(self.config.out / "checkpoint", self.averaged, card := self._card())
        scores = ", ".join(f"{k} {v:.3f}" for k, v in card["validation"].items())
        print(f"checkpoint: {self.config.out / 'checkpoint'} ({scores})")
