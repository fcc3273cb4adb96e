"""The tuning run: steps, validation, early stop, and going on where it was.

Each forward pass's windows and dropout depend on (seed, step, place in the step) alone: an interrupted run that goes on
gives the same teacher as one that was never stopped.
Shapes: B windows, T frames, H horizons, A units.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dyad import config as configuration
from dyad.action_units import SEED17
from dyad.layouts import processed
from dyad.provenance import run_card
from dyad.training_log import TrainingLog
from teacher import adapter, dataset, resume, trust
from teacher.crew import Crew
from teacher.eyes import SeeingTeacher
from teacher.feed import Feed, Part
from teacher.losses import listener_terms, with_speaker
from teacher.prompt import PROMPT, prompt_text
from teacher.qwen_omni import OmniTeacher, add_lora, load_base
from teacher.sampling import Dyad, Window, known_mean
from teacher.validation import validate

if TYPE_CHECKING:
    from teacher.tune import Config


class Tuner:
    """One run of `teacher.tune`."""

    def __init__(self, config: Config) -> None:
        torch.set_num_threads(config.threads)
        self.config, self.crew = config, Crew()
        self.train_set, self.val_set = (self._open(split) for split in processed.SPLITS)
        self.mean = self._mean("prob")
        self.rates = torch.from_numpy(self._mean("act")).to(self.crew.device)
        self.base = trust.base_odds(torch.from_numpy(self.mean), self.rates.cpu())
        self.teacher = self._new_teacher()
        self.feed = Feed(config, self.teacher, self.train_set)
        self.model = SeeingTeacher(self.teacher, torch.from_numpy(self._speaker_mean()))
        learning = resume.learning(self.model).values()
        optimizer = torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=0.01)
        self.wrapped, self.optimizer = self.crew.prepare(self.model, optimizer)
        self.step, self.best, self.waited, self.history = 0, -math.inf, 0, []
        self._resume()  # which may refuse: only then does this run's configuration replace what lies there
        if self.crew.leads:
            configuration.save(config, config.out / "config.yaml")

    # ---- what is tuned, and on what ---------------------------------------------------------------------------

    def _open(self, split: str) -> list[Dyad]:
        root, sessions = self.config.dataset, processed.load(self.config.dataset, split)
        with self.crew.lead_first():
            ready, failed = dataset.read_all(root, sessions, self.config.window)
        if self.crew.leads:
            for session_id, reason in failed.items():
                print(f"left out {session_id}: {reason}")
            print(f"{split}: {len(ready)} sessions, {len(failed)} left out")
        if not ready:
            raise ValueError(f"{root}/processed/{split}: no session could be decoded; see above")
        return [Dyad(s, media, processed.speaker_units(root, s.id, s.au_names)) for s, media in ready]

    def _mean(self, kind: str) -> NDArray[np.float32]:
        return known_mean(np.concatenate([getattr(d.session, kind) for d in self.train_set]))

    def _speaker_mean(self) -> NDArray[np.float32]:
        known = [d.speaker_au for d in self.train_set if d.speaker_au is not None]
        return known_mean(np.concatenate(known)) if known else np.zeros(len(self.mean), np.float32)

    def _new_teacher(self) -> OmniTeacher:
        config = self.config
        with self.crew.lead_first():
            thinker, processor, self.source = load_base(config.model, config.out)
        torch.manual_seed(config.seed)  # building the tiny base draws numbers, on the process that builds it
        checkpointing = config.gradient_checkpointing
        if torch.cuda.is_available() if checkpointing is None else checkpointing:
            thinker.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        rank, towers = config.lora_rank, config.lora_towers
        thinker = add_lora(thinker, rank=rank, alpha=2 * rank, dropout=config.dropout, towers=towers)
        self.read_out = {
            "units": len(SEED17.units),
            "horizons": config.horizons,
            "token_width": config.token_width,
            "width": config.width,
            "span": config.span_frames,
            "dropout": config.dropout,
        }
        teacher = OmniTeacher(thinker, processor, config.window, prompt_text(config.prompt or PROMPT), self.read_out)
        teacher.read_out.start_at(torch.from_numpy(self.mean), self.rates.cpu())
        return teacher

    # ---- steps ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Tune until the steps are done or patience runs out."""
        config = self.config
        if not self.history:
            self.history.append({"step": 0, **self.validate()})
        with contextlib.ExitStack() as stack:
            log = None
            if self.crew.leads:
                log = TrainingLog(config.out, self.step, config.steps, shown=("loss", "val_loss", "skill", "ccc"))
                stack.callback(log.close)
            for parts in self.feed.steps(self.step, self.places):
                if self.waited >= config.patience:
                    break
                record = self._train_step(parts)
                self.step += 1
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    record |= self.validate()
                    self._keep(record)
                if log is not None:
                    log.write(self.step, record)

    @property
    def places(self) -> list[int]:
        """Which forward passes of a step are this process's."""
        return [self.crew.rank * self.config.accumulate + k for k in range(self.config.accumulate)]

    def _train_step(self, parts: list[Part]) -> dict[str, float]:
        began, sums = time.perf_counter(), {}
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_now()
        self.optimizer.zero_grad(set_to_none=True)
        for place, part in zip(self.places, parts, strict=True):
            torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 1009 + place)
            with self.crew.gather_gradients(self.wrapped, now=place == self.places[-1]):
                terms = self._terms(part)
                (terms["loss"] / len(parts)).backward()
            for k, v in terms.items():
                sums[k] = sums.get(k, 0.0) + v.detach() / (len(parts) * self.crew.size)
        norm = torch.nn.utils.clip_grad_norm_(resume.learning(self.model).values(), 1.0)
        names, values = list(sums), self.crew.total(torch.stack(list(sums.values()))).tolist()
        record = dict(zip(names, values, strict=True)) | {"gradient_norm": float(resume.whole(norm))}
        self._require_finite(record)
        self.optimizer.step()
        windows = self.config.batch * len(parts) * self.crew.size
        return record | {"rate": self.rate_now(), "windows_per_s": windows / (time.perf_counter() - began)}

    def _terms(self, part: Part) -> dict[str, Tensor]:
        """The terms of the loss, and their sum."""
        batch, targets = part
        prob, act, speaker = (t.to(self.crew.device) for t in targets)
        logits, seen = self.wrapped(batch.to(self.crew.device))
        terms = listener_terms(logits, prob, act, self.config.loss, self.rates)
        return with_speaker(terms, seen, speaker, self.config.loss.speaker_au)

    def _require_finite(self, record: dict[str, float]) -> None:
        for what in ("loss", "gradient_norm"):
            if not math.isfinite(record[what]):
                raise ValueError(
                    f"{what} became {record[what]} at step {self.step}; the teacher in {self.config.out} is the best "
                    "before it; lower --learning-rate, give another --out and run again"
                )

    def rate_now(self) -> float:
        """Warm-up over a twentieth of the steps, then a cosine down to a fiftieth."""
        done, length = self.step / self.config.steps, self.config.steps
        warm = min(1.0, (self.step + 1) / max(length * 0.05, 1))
        return self.config.learning_rate * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))

    def validate(self) -> dict[str, float]:
        """Scores on the validation sessions; all processes have the same."""
        self.model.eval()

        def answer(window: Window) -> Tensor:
            batch, _ = self.feed.pack([window])
            return self.wrapped(batch.to(self.crew.device))[0][0]

        config = self.config
        return validate(answer, self.val_set, config.window, config.horizons, self.mean, self.base, self.crew)

    # ---- keep and go on ---------------------------------------------------------------------------------------

    def _keep(self, record: dict[str, float]) -> None:
        """After a validation: the best teacher so far, and a resume point."""
        self.history.append({"step": self.step, **record})
        weights, state = resume.weights_of(self.model), resume.optimizer_state(self.optimizer)
        better = record["ccc"] > self.best
        self.best, self.waited = (record["ccc"], 0) if better else (self.best, self.waited + 1)
        if self.crew.leads:
            if better:
                self._save(weights, torch.tensor([record[f"trust/{kind}"] for kind in ("prob", "act")]))
            counters = {"step": self.step, "best": self.best, "waited": self.waited, "history": self.history}
            content = {"weights": weights, "optimizer": state, "settings": self._settings(), **counters}
            resume.write(self.config.out, content)
        self.crew.wait()

    def _save(self, weights: dict[str, Tensor], share: Tensor) -> None:
        contract = adapter.contract_of(
            self.teacher, model=self.config.model, source=self.source, read_out=self.read_out
        )
        card = run_card(command="teacher.tune", config=configuration.as_dict(self.config))
        mine = trust.fold({k.removeprefix("teacher."): v for k, v in weights.items()}, self.base, share)
        adapter.save(self.config.out, self.teacher, contract, card | {"validation": self.history}, mine)

    def _settings(self) -> dict[str, Any]:
        """What a run must keep when it goes on: all but where it writes, how long it waits, and its cores."""
        aside = ("out", "threads", "patience")
        kept = {k: v for k, v in configuration.as_dict(self.config).items() if k not in aside}
        return kept | {"number of processes": self.crew.size}

    def _resume(self) -> None:
        content = resume.read(self.config.out, self._settings())
        if content is None:
            return
        resume.put_weights(self.model, content["weights"])
        resume.put_optimizer_state(self.optimizer, content["optimizer"])
        self.step, self.best = content["step"], content["best"]
        self.waited, self.history = content["waited"], content["history"]
        if self.crew.leads:
            print(f"going on at step {self.step} of {self.config.steps}")

    def finish(self) -> None:
        """Tell what tuning brought."""
        if self.crew.leads:
            first, best = self.history[0], max(self.history[1:] or self.history, key=lambda r: r["ccc"])
            for name, r in (("untuned: ", first), ("tuned:   ", best)):
                print(f"{name}loss {r['val_loss']:.3f}, skill {r['skill']:.3f}, macro CCC {r['ccc']:.3f}")
            print(f"teacher: {self.config.out}")
        self.crew.close()
