"""Qwen2.5-Omni's thinker with LoRA, read out at its media tokens.

The language head is skipped: audio and video features are scattered into the embeddings and the text model is run on
them, which gives the very hidden states of the full forward and saves its vocabulary-wide product. The prompt is read
once for all windows: its keys and values are kept.
Shapes: B windows, L tokens, M media tokens, C hidden width, T frames, H horizons, A units.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from dyad.clock import FPS
from teacher import attention, timeline
from teacher.family import require_known
from teacher.heads import ReadOut
from teacher.layout import Layout, layout_of
from teacher.window_spec import WindowSpec
from teacher.windows import SpeakerMedia, cut_sound

LANGUAGE_LORA = r"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
TOWER_LORA = (
    r"visual\.blocks\.\d+\.(attn\.(q|k|v|qkv|proj)|mlp\.(gate_proj|up_proj|down_proj))|visual\.merger\.mlp\.[02]"
    r"|audio_tower\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|fc1|fc2)|audio_tower\.proj"
)

Prefix = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MediaBatch:
    """Windows ready for the model; all of one length. What windows share is there once."""

    pictures: Tensor
    """[pictures, h, w, 3] uint8 of all windows: they travel to the device as bytes."""
    grids: Tensor
    """Grids of `pictures` that each window shows [B, G]."""
    features: Tensor
    feature_mask: Tensor
    frames: int

    def to(self, device: torch.device) -> "MediaBatch":
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in self.__dataclass_fields__ if name != "frames"}
        return replace(self, **moved)


def _quiet() -> None:
    """Progress bars and advice of the library are not the user's concern."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def source_of(model: str, folder: Path) -> str:
    """Where a base is loaded from: `tiny` is built in `folder`/base first."""
    from teacher import tiny

    return str(tiny.build(folder / "base")) if model == "tiny" else model


def folder_of(source: str) -> Path:
    """The folder of a base: itself, or where the hub's cache keeps it; raises OSError where it is neither."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except ValueError:  # a path that is not there, and no hub's name either
        raise FileNotFoundError(source) from None


def load_base(model: str, folder: Path) -> tuple[Any, Any, str]:
    """Thinker, processor and where they came from; `tiny` is built in `folder`/base first.

    Raises ValueError with the way out when a hub id is not at hand.
    """
    from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

    _quiet()
    source = source_of(model, folder)
    with contextlib.suppress(OSError):  # not at hand: loading it says so, and what to do
        require_known(folder_of(source), model)
    try:
        processor = Qwen2_5OmniProcessor.from_pretrained(source)
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        thinker = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(source, dtype=dtype)
    except (SafetensorError, OSError, ValueError) as error:
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
        self.thinker, self.processor, self.spec, self.prompt = thinker, processor, spec, prompt
        attention.use(self.core)
        self._layouts: dict[tuple[int, torch.device], Layout] = {}
        self._positions: dict[tuple[int, torch.device], Tensor] = {}
        layout, config = self.layout(spec.frames, torch.device("cpu")), self.core.config
        self.read_out = ReadOut(config.text_config.hidden_size, len(layout.video_rows) // layout.grids, **read_out)

    @property
    def core(self) -> Any:
        """The thinker itself, without the LoRA wrapper."""
        from peft import PeftModel

        return self.thinker.get_base_model() if isinstance(self.thinker, PeftModel) else self.thinker

    def layout(self, frames: int, device: torch.device) -> Layout:
        """The layout of windows of `frames` frames, made once."""
        if (frames, device) not in self._layouts:
            config = self.core.config
            tokens = {"video_token": config.video_token_id, "audio_token": config.audio_token_id}
            made = layout_of(self.processor, replace(self.spec, frames=frames), self.prompt, **tokens)
            self._layouts[frames, device] = made.to(device)
        return self._layouts[frames, device]

    def pack(self, pictures: NDArray[np.uint8], sounds: NDArray[np.float32]) -> MediaBatch:
        """Windows [B, pictures, h, w, 3] and [B, samples], no two of which share pictures."""
        count = pictures.shape[1] // timeline.FRAMES_PER_GRID
        grids = torch.arange(len(pictures) * count).view(-1, count)
        return self._batch(pictures.reshape(-1, *pictures.shape[2:]), grids, sounds)

    def pack_stretch(self, speaker: SpeakerMedia, at: Sequence[int]) -> MediaBatch:
        """Windows at frames `at` of a session, ascending: pictures that several windows show are taken once.

        A picture's tokens do not depend on its window: the tower looks at one grid at a time.
        """
        spec, grid = self.spec, FPS // self.spec.video_fps * timeline.FRAMES_PER_GRID
        first, count = at[0] * spec.video_fps // FPS, (at[-1] - at[0]) // grid + spec.pictures // 2
        rows = np.minimum(np.arange(first, first + 2 * count), len(speaker.pictures) - 1)
        grids = torch.tensor([(start - at[0]) // grid for start in at])[:, None] + torch.arange(spec.pictures // 2)
        return self._batch(speaker.pictures[rows], grids, np.stack([cut_sound(speaker, start, spec) for start in at]))

    def _batch(self, pictures: NDArray[np.uint8], grids: Tensor, sounds: NDArray[np.float32]) -> MediaBatch:
        audio = self.processor.feature_extractor(
            list(sounds), sampling_rate=16000, padding="longest", return_attention_mask=True, return_tensors="pt"
        )
        frames = grids.shape[1] * timeline.FRAMES_PER_GRID * FPS // self.spec.video_fps
        pixels = torch.from_numpy(np.ascontiguousarray(pictures))
        return MediaBatch(pixels, grids, audio["input_features"], audio["attention_mask"], frames)

    def patches(self, pictures: Tensor) -> Tensor:
        """[pictures, h, w, 3] uint8 → [patches, values], as the processor's own code lays them out, on any device."""
        made, (count, height, width, channels) = self.processor.video_processor, pictures.shape
        p, m, t = made.patch_size, made.merge_size, made.temporal_patch_size
        cells = pictures.view(count // t, t, height // p // m, m, p, width // p // m, m, p, channels)
        values = cells.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, channels, t * p * p).float()
        mean, std = (255 * torch.tensor(v, device=values.device)[:, None] for v in (made.image_mean, made.image_std))
        return values.sub_(mean).div_(std).flatten(1)

    def embeddings(self, batch: MediaBatch) -> Tensor:
        """Input embeddings [B, L, C]: the prompt's words with the media features scattered in."""
        core, count = self.core, len(batch.grids)
        layout = self.layout(batch.frames, batch.features.device)
        embeds = core.get_input_embeddings()(layout.ids.expand(count, -1))
        sound = core.get_audio_features(batch.features, batch.feature_mask, return_dict=True).last_hidden_state
        side = batch.pictures.shape[1] // core.config.vision_config.patch_size
        shape = torch.tensor([[len(batch.pictures) // timeline.FRAMES_PER_GRID, side, side]], device=sound.device)
        seen = torch.cat(core.get_video_features(self.patches(batch.pictures), shape, return_dict=True).pooler_output)
        video = seen.unflatten(0, (int(shape[0, 0]), -1))[batch.grids]
        for rows, values in ((layout.audio_rows, sound), (layout.video_rows, video)):
            values = values.to(embeds.dtype).reshape(count, -1, embeds.shape[-1])
            embeds = embeds.index_copy(1, layout.media_at[rows], values)
        return embeds

    def positions(self, frames: int, device: torch.device) -> Tensor:
        """The model's own three-axis positions [3, 1, L] for interleaved media: the same in windows of one length."""
        if (frames, device) not in self._positions:
            ids, spec = self.layout(frames, device).ids[None], replace(self.spec, frames=frames)
            patches = spec.size_px // self.core.config.vision_config.patch_size
            self._positions[frames, device], _ = self.core.get_rope_index(
                ids,
                video_grid_thw=torch.tensor([[spec.pictures // timeline.FRAMES_PER_GRID, patches, patches]]),
                attention_mask=torch.ones_like(ids),
                use_audio_in_video=True,
                audio_seqlens=torch.tensor([spec.samples // timeline.MEL_HOP_SAMPLES]),
                second_per_grids=torch.tensor([timeline.FRAMES_PER_GRID / spec.video_fps]),
            )
        return self._positions[frames, device].to(device)

    def prefix(self, frames: int, device: torch.device) -> Prefix:
        """Keys and values [1, heads, tokens, width] of the prompt in every layer; all windows begin with it."""
        layout = self.layout(frames, device)
        embeds = self.core.get_input_embeddings()(layout.ids[None, : layout.prefix])
        positions = self.positions(frames, device)[..., : layout.prefix]
        cache = self.core.model(inputs_embeds=embeds, position_ids=positions, use_cache=True).past_key_values
        return [(layer.keys, layer.values) for layer in cache.layers]

    def hidden(self, batch: MediaBatch, prefix: Prefix | None = None) -> Tensor:
        """Hidden states [B, L, C] of the last layer; with the prompt's `prefix` at hand, those after it alone."""
        embeds = self.embeddings(batch)
        positions = self.positions(batch.frames, embeds.device).expand(-1, len(embeds), -1)
        if prefix is None:
            return self.core.model(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state
        from transformers import DynamicCache

        done, cache = prefix[0][0].shape[2], DynamicCache()
        for i, (keys, values) in enumerate(prefix):
            cache.update(*(t.expand(len(embeds), -1, -1, -1) for t in (keys, values)), layer_idx=i)
        return self.core.model(
            inputs_embeds=embeds[:, done:], position_ids=positions[..., done:], past_key_values=cache, use_cache=True
        ).last_hidden_state

    def token_features(self, batch: MediaBatch, prefix: Prefix | None = None) -> Tensor:
        """Narrow views of the media tokens [B, M, P], in prompt order."""
        layout, done = self.layout(batch.frames, batch.features.device), 0 if prefix is None else prefix[0][0].shape[2]
        return self.read_out.tokens(self.hidden(batch, prefix)[:, layout.media_at - done], layout.is_video)

    def forward(self, batch: MediaBatch) -> Tensor:
        """Log-odds [B, T, H, A, 2]."""
        return self.read_out(self.token_features(batch), self.layout(batch.frames, batch.features.device))

    def trainable(self) -> list[nn.Parameter]:
        """LoRA and read-out parameters: all that is ever tuned."""
        return [p for p in self.parameters() if p.requires_grad]
