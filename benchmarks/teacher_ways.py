"""The ways of labelling that `benchmarks/teacher.py` times: our back ends, and the library as its examples use it.

All of them are `teacher.backends.Backend`s and hold the very same weights, once in memory. The plain way runs on a
thinker without `teacher.attention`: it is the library's own code from the processor to the hidden states.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from teacher import cost
from teacher.window_spec import WindowSpec

if TYPE_CHECKING:
    import torch

READ_OUT = {"units": 17, "horizons": 9, "token_width": 32, "width": 128, "span": 31, "dropout": 0.1}
Labels = tuple[Any, Any, Any]


def tuned_teacher(folder: Path, device: torch.device) -> Any:
    """A tuned teacher in evaluation mode, its adapter merged."""
    from teacher import adapter

    model, _ = adapter.load(folder)
    if model.core is not model.thinker:
        model.thinker = model.thinker.merge_and_unload()
    return model.to(device)


def random_teacher(shape: str, spec: WindowSpec, device: torch.device) -> Any:
    """An `OmniTeacher` in evaluation mode with random weights made on `device`."""
    import torch

    from teacher import tiny
    from teacher.qwen_omni import OmniTeacher

    torch.manual_seed(0)
    processor = tiny.build_processor()
    thinker = random_thinker(shape, processor, device)
    model = OmniTeacher(thinker, processor, spec, prompt_of(shape), READ_OUT)
    model.read_out.second.data.normal_()  # answers that differ from window to window
    return model.to(device).eval()


def random_thinker(shape: str, processor: Any, device: torch.device) -> Any:
    """The real classes at this shape, weights drawn on the device itself: bfloat16 on a GPU, float32 elsewhere."""
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniThinkerConfig
    from transformers.utils import logging

    from teacher import tiny

    logging.set_verbosity_error()
    made = tiny.build_config(processor)
    if shape != "tiny":
        numbers = cost.RELEASED[shape]
        rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
        text = dict(numbers["text_config"]) | {"rope_parameters": rope}
        made = Qwen2_5OmniThinkerConfig.from_dict(made.to_dict() | numbers | {"text_config": text})
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        return Qwen2_5OmniThinkerForConditionalGeneration._from_config(made, dtype=dtype)


def prompt_of(shape: str) -> str:
    """The task prompt; of a released shape as many bytes, which are the toy's tokens, as the true one has tokens."""
    from teacher.prompt import prompt_text

    text = prompt_text()
    if shape == "tiny":
        return text
    true = cost.tokens_of(cost.RELEASED[shape], WindowSpec()).prompt
    return text[: true - len("user\n") - 3]  # three marks around it


def same_weights(thinker: Any) -> Any:
    """A copy of a thinker on the same weights."""
    return copy.deepcopy(thinker, {id(p): p for p in thinker.parameters()})


def stock(thinker: Any) -> Any:
    """A thinker as the library makes it, on the same weights: what `teacher.attention.use` set is undone."""
    plain = same_weights(thinker)
    for part in (plain.visual, plain.audio_tower, plain.model):
        part.config._attn_implementation = "sdpa"
    vars(plain.visual.patch_embed).pop("forward", None)
    return plain


class Plain:
    """The library as its examples use it: processor and full forward, one window after the other."""

    def __init__(self, model: Any) -> None:
        self.teacher, self.core = model, stock(model.core)
        self.spec, self.read_out = model.spec, model.read_out
        self.device = model.read_out.project.weight.device
        self.layout = model.layout(model.spec.frames, self.device)

    def features(self, speaker: Any, at: Sequence[int]) -> Any:
        """See `teacher.backends.Backend`."""
        return np.concatenate([self._window(self.prepare(speaker, start)) for start in at])

    def prepare(self, speaker: Any, start: int) -> Any:
        """What the library's processor makes of a window."""
        from teacher.prompt import prompt_with_media
        from teacher.windows import cut

        pictures, sound = cut(speaker, start, self.spec)
        ways = {"fps": self.spec.video_fps, "do_resize": False, "do_sample_frames": False, "use_audio_in_video": True}
        media = {"videos": [pictures], "audio": [sound], "videos_kwargs": ways}
        text = prompt_with_media(self.teacher.prompt)
        return self.teacher.processor(text=text, return_tensors="pt", **media).to(self.device)

    def _window(self, inputs: Any) -> Any:
        import torch

        with torch.no_grad():
            out = self.core(**inputs, use_audio_in_video=True, output_hidden_states=True)
            states = out.hidden_states[-1][:, self.layout.media_at]
            return self.read_out.tokens(states, self.layout.is_video).cpu().numpy()


def ways_of(model: Any, batches: Sequence[int], lora_rank: int) -> dict[str, Any]:
    """Name → back end, the plain way first; one with an adapter beside its weights where it is to have a rank."""
    from teacher.backends.transformers import TransformersBackend

    found: dict[str, Any] = {"plain": Plain(model)}
    found |= {f"ours, batch {n}": TransformersBackend(model, n) for n in batches}
    if lora_rank:
        last = batches[-1]
        found[f"adapter not merged, batch {last}"] = TransformersBackend(with_adapter(model, lora_rank), last)
    return found


def with_adapter(model: Any, rank: int) -> Any:
    """The same model with an adapter beside its weights, as it comes from tuning."""
    from teacher.qwen_omni import OmniTeacher, add_lora

    thinker = add_lora(same_weights(model.thinker), rank=rank, alpha=2 * rank, dropout=0.0, towers=False)
    other = OmniTeacher(thinker, model.processor, model.spec, model.prompt, READ_OUT).eval()
    other.read_out = model.read_out
    return other


def worst_difference(one: Labels, other: Labels) -> float:
    """Largest absolute difference of any label; log-odds are compared as the probabilities that they stand for."""
    pairs = [(one[0], other[0]), (np.tanh(one[1] / 2) / 2, np.tanh(other[1] / 2) / 2), (one[2], other[2])]
    return max(float(np.abs(a - b).max()) for a, b in pairs)
