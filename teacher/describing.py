"""Sessions → events beside their labels, one session at a time; the same words whoever labelled.

A pass of its own after the labels: it wants the base's language, so neither the merged weights nor a pooling engine.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from dyad.config import as_dict, from_dict
from dyad.events import EventStore
from dyad.provenance import run_card
from dyad.session import Clip
from teacher import adapter, dataset
from teacher.describe import DescribeConfig, Describer, OmniDescriber, asked, describe_session
from teacher.labeller import Outcome
from teacher.merge import is_merged
from teacher.window_spec import WindowSpec

if TYPE_CHECKING:
    from teacher.label import Config


def require_language(config: Config) -> None:
    """Raise ValueError where there is no base model to ask, before anything is labelled; vLLM loads it by itself."""
    folder = config.teacher
    if config.describe_with == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ValueError("--describe-with vllm: vLLM is not installed; run uv sync --extra vllm, or leave it out")
    if config.describe_with == "transformers" and is_merged(folder):
        raise ValueError(
            f"{folder}: --describe wants the base model's language, but this teacher's adapter is merged into its "
            "weights; label with it, and describe with the folder that python -m teacher.tune wrote, or with "
            "--describe-with vllm"
        )


def settings_of(config: Config) -> DescribeConfig:
    """How `config` asks."""
    return DescribeConfig(batch=config.batch)


def spec_of(config: Config) -> WindowSpec:
    """How the teacher's windows are cut."""
    window = adapter.read_contract(config.teacher)["window"]
    return from_dict(WindowSpec, window, where=str(config.teacher / "teacher.json"))


def open_store(config: Config) -> EventStore:
    """The events of the store that `config` writes to, begun or gone on with."""
    contract, settings, spec = adapter.read_contract(config.teacher), settings_of(config), spec_of(config)
    card = run_card(command="teacher.label --describe", config=as_dict(config))
    how = asked(contract["model"], contract["base_hash"], spec, settings) | {"engine": config.describe_with}
    return EventStore.create(config.out, asked=how, emotions=settings.emotions, run=card)


def outstanding(store: EventStore, clips: list[Clip], *, again: bool) -> list[Clip]:
    """Sessions still to describe; damaged files are named, removed and made again. `again` takes all."""
    wanted = {c.id for c in clips}
    for session_id, reason in store.broken():
        if session_id not in wanted:
            print(f"damaged, and not asked for now: {reason}")
            continue
        print(f"describing {session_id} again: {reason}")
        store.remove(session_id)
    return clips if again else [c for c in clips if c.id not in store]


def run(config: Config, store: EventStore, clips: list[Clip]) -> Iterator[Outcome]:
    """Describe sessions in order; one whose media fail has a fault."""
    torch.set_num_threads(config.threads)
    settings, spec = settings_of(config), spec_of(config)
    describer = open_describer(config, spec, settings)
    for clip in clips:
        try:
            speaker = dataset.cached_speaker(config.dataset, clip, spec)
        except ValueError as error:
            yield Outcome(clip.id, str(error))
            continue
        store.write(clip.id, describe_session(describer, speaker, clip.n_frames, spec, settings))
        yield Outcome(clip.id)


def open_describer(config: Config, spec: WindowSpec, settings: DescribeConfig) -> Describer:
    """Who is asked: the base under the teacher's adapter, or the base alone in vLLM."""
    if config.describe_with == "vllm":
        from teacher.describe_vllm import VllmDescriber

        return VllmDescriber(config.base or adapter.read_contract(config.teacher)["model"], spec, settings)
    return OmniDescriber(adapter.load(config.teacher, config.base)[0].to(adapter.device()), settings)
