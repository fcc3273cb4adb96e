"""Qwen2.5-Omni's thinker with LoRA, read out at its media tokens.

The language head is skipped: audio and video features are scattered into the embeddings and the text model is run on
them, which gives the very hidden states of the full forward and saves its vocabulary-wide product. The task prompt
comes first, then the media in the model's own interleaved form, so that every media token knows the task.
Shapes: B windows, L tokens, C hidden width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from teacher import timeline
from teacher.heads import ReadOut
from teacher.window_spec import WindowSpec

LANGUAGE_LORA = r"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
TOWER_LORA = (
    r"visual\.blocks\.\d+\.(attn\.(q|k|v|qkv|proj)|mlp\.(gate_proj|up_proj|down_proj))|visual\.merger\.mlp\.[02]"
    r"|audio_tower\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|fc1|fc2)|audio_tower\.proj"
)


@dataclass(frozen=True)
class MediaBatch:
    """Windows ready for the model; all of one length."""

    pixel_values: Tensor
    grid_thw: Tensor
    features: Tensor
    feature_mask: Tensor

    def to(self, device: torch.device) -> "MediaBatch":
        """The same on another device."""
        return MediaBatch(*(getattr(self, f).to(device) for f in self.__dataclass_fields__))


def _quiet() -> None:
    """Progress bars and advice of the library are not the user's concern."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_base(model: str, folder: Path) -> tuple[Any, Any, str]:
    """Thinker, processor and where they came from; `tiny` is built in `folder`/base first.

    Raises ValueError with the way out when a hub id is not at hand.
    """
    from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

    from teacher import tiny

    _quiet()
    source = str(tiny.build(folder / "base")) if model == "tiny" else model
    try:
        processor = Qwen2_5OmniProcessor.from_pretrained(source)
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        thinker = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--model {model}: not found here ({str(error).splitlines()[0]}); on a machine with a network run "
            f"'hf download {model} --local-dir DIR' and pass --model DIR, or use --model tiny"
        ) from None
    return thinker, processor, source


def add_lora(thinker: Any, *, rank: int, alpha: int, dropout: float, towers: bool) -> Any:
    """Wrap the thinker with LoRA on the language model, and on the towers when asked; all else is frozen."""
    from peft import LoraConfig, get_peft_model

    target = f".*({LANGUAGE_LORA}|{TOWER_LORA})" if towers else f"({LANGUAGE_LORA})"
    return get_peft_model(
        thinker, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target, bias="none")
    )


class OmniTeacher(nn.Module):
    """Thinker (with or without LoRA) and read-out."""

    def __init__(self, thinker: Any, processor: Any, spec: WindowSpec, prompt: str, read_out: dict[str, Any]) -> None:
        super().__init__()
        self.thinker, self.processor, self.spec = thinker, processor, spec
        self.ids = self._token_ids(prompt)
        core = self.core
        self.video_at = (self.ids == core.config.video_token_id).nonzero()[:, 0]
        self.audio_at = (self.ids == core.config.audio_token_id).nonzero()[:, 0]
        self.grids = spec.pictures // timeline.FRAMES_PER_GRID
        frames = timeline.frame_centres_s(spec.frames)
        seen = timeline.interpolation(timeline.video_centres_s(self.grids, spec.video_fps), frames)
        heard = timeline.interpolation(timeline.audio_centres_s(len(self.audio_at)), frames)
        weights = {"video_weights": torch.from_numpy(seen), "audio_weights": torch.from_numpy(heard)}
        tokens = len(self.video_at) // self.grids
        self.read_out = ReadOut(core.config.text_config.hidden_size, tokens, **weights, **read_out)

    @property
    def core(self) -> Any:
        """The thinker itself, without the LoRA wrapper."""
        return self.thinker.get_base_model() if hasattr(self.thinker, "get_base_model") else self.thinker

    def _token_ids(self, prompt: str) -> Tensor:
        """Token ids [L] of a window: prompt, then interleaved media; the same for every window."""
        text = f"<|im_start|>user\n{prompt}<|vision_bos|><|VIDEO|><|vision_eos|><|im_end|>\n"
        spec = self.spec
        inputs = self.processor(
            text=text,
            videos=[np.zeros((spec.pictures, spec.size_px, spec.size_px, 3), np.uint8)],
            audio=[np.zeros(spec.samples, np.float32)],
            videos_kwargs={
                "fps": spec.video_fps,
                "do_resize": False,
                "do_sample_frames": False,
                "use_audio_in_video": True,
            },
            return_tensors="pt",
        )
        return inputs["input_ids"][0]

    def pack(self, pictures: NDArray[np.uint8], sounds: NDArray[np.float32]) -> MediaBatch:
        """Windows [B, pictures, h, w, 3] and [B, samples] through the processor's own components."""
        video = self.processor.video_processor(
            videos=list(pictures), do_resize=False, do_sample_frames=False, return_tensors="pt"
        )
        audio = self.processor.feature_extractor(
            list(sounds), sampling_rate=16000, padding="longest", return_attention_mask=True, return_tensors="pt"
        )
        return MediaBatch(
            video["pixel_values_videos"], video["video_grid_thw"], audio["input_features"], audio["attention_mask"]
        )

    def hidden(self, batch: MediaBatch) -> Tensor:
        """Hidden states [B, L, C] of the last layer."""
        core, count = self.core, len(batch.grid_thw)
        ids = self.ids.to(batch.features.device).expand(count, -1)
        embeds = core.get_input_embeddings()(ids)
        sound = core.get_audio_features(batch.features, batch.feature_mask, return_dict=True).last_hidden_state
        video = torch.cat(core.get_video_features(batch.pixel_values, batch.grid_thw, return_dict=True).pooler_output)
        width = embeds.shape[-1]
        embeds = embeds.index_copy(1, self.audio_at.to(ids.device), sound.to(embeds.dtype).reshape(count, -1, width))
        embeds = embeds.index_copy(1, self.video_at.to(ids.device), video.to(embeds.dtype).reshape(count, -1, width))
        positions = self._positions(ids, batch)
        return core.model(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state

    def _positions(self, ids: Tensor, batch: MediaBatch) -> Tensor:
        """The model's own three-axis positions [3, B, L] for interleaved media."""
        positions, _ = self.core.get_rope_index(
            ids,
            video_grid_thw=batch.grid_thw,
            attention_mask=torch.ones_like(ids),
            use_audio_in_video=True,
            audio_seqlens=batch.feature_mask.sum(dim=1),
            second_per_grids=torch.full((len(ids),), timeline.FRAMES_PER_GRID / self.spec.video_fps),
        )
        return positions.to(ids.device)

    def forward(self, batch: MediaBatch) -> Tensor:
        """Log-odds [B, T, A, 2]."""
        states = self.hidden(batch).float()
        video = states[:, self.video_at].reshape(len(states), self.grids, -1, states.shape[-1])
        return self.read_out(video, states[:, self.audio_at])

    def trainable(self) -> list[nn.Parameter]:
        """LoRA and read-out parameters: all that is ever tuned."""
        return [p for p in self.parameters() if p.requires_grad]
