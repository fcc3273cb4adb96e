"""The teacher's thinker as vLLM runs it: the stock Qwen2.5-Omni thinker, pooled to narrow views of its media tokens.

Found by the name that `teacher.merged` writes into config.json; `teacher.backends.vllm.register` tells vLLM of it.
What differs from the stock class, and why:
- tokens and positions of interleaved media follow transformers' rules, on which the teacher was tuned; vLLM's differ;
- media go through the processor's components as in `OmniTeacher.pack`: no resizing, no padding of sound to 300 s;
- media features are told apart by kind in every step: where a step cuts a window so that its tokens do not interleave,
  the stock class takes pictures first, and gives sound the features of pictures;
- no language head: it would only take memory.
Shapes: S tokens of one window in this step, M media tokens of a window, C hidden width, P token width.
"""

# pyright: reportMissingImports=false
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniPreTrainedModelForConditionalGeneration
from vllm.config import VllmConfig
from vllm.model_executor.layers.pooler import PoolingParamsUpdate
from vllm.model_executor.layers.pooler.abstract import Pooler
from vllm.model_executor.models.interfaces_base import default_pooling_type
from vllm.model_executor.models.qwen2_5_omni_thinker import (
    Qwen2_5OmniThinkerDummyInputsBuilder,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2_5OmniThinkerMultiModalProcessor,
    Qwen2_5OmniThinkerProcessingInfo,
    merge_interleaved_embeddings,
)
from vllm.model_executor.models.utils import PPMissingLayer
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFeatureSpec, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing.processor import PromptReplacement, PromptUpdate, PromptUpdateDetails
from vllm.v1.pool.metadata import PoolingMetadata, PoolingStates

from teacher.heads import TokenReadOut
from teacher.timeline import FRAMES_PER_GRID

SAMPLE_RATE = 16000
MARK = re.compile(r"<\|.+?\|>")
"""A special token in a text of nothing else."""
RELEASED_FPS = 2.0
"""Pictures per second where a request does not say: vLLM's own profiling run."""


class WindowInfo(Qwen2_5OmniThinkerProcessingInfo):
    """How many tokens a window's media take, from the limits that the engine was started with."""

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int] | None = None) -> dict[str, int]:
        """Pictures and sound stand in one place and are encoded in one step: room for one is room for both."""
        limits, vision = self.ctx.get_mm_config().limit_per_prompt, self.get_hf_config().vision_config
        video, side = limits["video"], vision.patch_size * vision.spatial_merge_size
        pictures = video.num_frames // FRAMES_PER_GRID * (video.height // side) * (video.width // side)
        both = pictures + audio_tokens(limits["audio"].length // self.get_feature_extractor().hop_length)
        return {"video": both, "audio": both}


class WindowDummies(Qwen2_5OmniThinkerDummyInputsBuilder):
    """Black pictures and silence of a window's size, on which vLLM measures the memory that the towers take."""

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> dict[str, Any]:
        """As many as asked for."""
        video, audio = mm_options["video"], mm_options["audio"]
        pictures = np.zeros((video.num_frames, video.height, video.width, 3), np.uint8)
        sound = np.zeros(audio.length, np.float32)
        return {"video": [pictures] * mm_counts.get("video", 0), "audio": [sound] * mm_counts.get("audio", 0)}


class MediaProcessor(Qwen2_5OmniThinkerMultiModalProcessor):
    """Pictures and sound → what the towers take, and the tokens that stand for them."""

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, Any]) -> BatchFeature:
        """As in `OmniTeacher.pack`, in the model's number format."""
        processor, dtype = self.info.get_hf_processor(), self.info.ctx.model_config.dtype
        out: dict[str, Any] = {}
        if hf_data.get("videos"):
            video = processor.video_processor(
                videos=list(hf_data["videos"]), do_resize=False, do_sample_frames=False, return_tensors="pt"
            )
            out["pixel_values_videos"] = video["pixel_values_videos"].to(dtype)
            out["video_grid_thw"] = video["video_grid_thw"]
            seconds = FRAMES_PER_GRID / hf_kwargs.get("fps", RELEASED_FPS)
            out["video_second_per_grid"] = torch.full((len(video["video_grid_thw"]),), seconds)
        if hf_data.get("audio"):
            options = {"padding": "longest", "return_attention_mask": True, "return_tensors": "pt"}
            audio = processor.feature_extractor(list(hf_data["audio"]), sampling_rate=SAMPLE_RATE, **options)
            out["input_features"] = audio["input_features"].to(dtype)
            out["feature_attention_mask"] = audio["attention_mask"]
        return BatchFeature(out)

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, Any],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        """A video's token becomes pictures and sound interleaved, as transformers' processor lays them out."""
        stock = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        if not hf_processor_mm_kwargs.get("use_audio_in_video"):
            return stock
        config, data = self.info.get_hf_config(), out_mm_kwargs.get_data()

        def interleaved(item: int) -> PromptUpdateDetails:
            grid, mels = data["video_grid_thw"][item].tolist(), int(data["audio_feature_lengths"][item])
            ids = self._interleaved(grid, mels, hf_processor_mm_kwargs["fps"])
            return PromptUpdateDetails.select_token_id(seq=ids, embed_token_id=config.video_token_id)

        mine = PromptReplacement(modality="video", target=[config.video_token_id], replacement=interleaved)
        return [*(update for update in stock if update.modality != "video"), mine]

    def _interleaved(self, grid: list[int], mels: int, fps: float) -> list[int]:
        """Token ids of a video with its sound, by transformers' own routine, without the vision marks around them."""
        processor, config = self.info.get_hf_processor(), self.info.get_hf_config()
        marked = processor.vision_bos_token + processor.video_token + processor.vision_eos_token
        (text,) = processor.replace_multimodal_special_tokens(
            [marked],
            iter([audio_tokens(mels)]),
            iter([]),
            iter([grid]),
            video_second_per_grid=iter([FRAMES_PER_GRID / fps]),
            use_audio_in_video=True,
            position_id_per_seconds=config.position_id_per_seconds,
            seconds_per_chunk=config.seconds_per_chunk,
        )
        return processor.tokenizer.convert_tokens_to_ids(MARK.findall(text))[1:-1]


def audio_tokens(mels: int) -> int:
    """Sound tokens of that many mel frames: a convolution of stride 2, then pooling by 2."""
    return ((mels - 1) // 2 + 1 - 2) // 2 + 1


class MediaPooler(Pooler):
    """Hidden states → narrow views [M, P] of a window's media tokens, in prompt order.

    A window may come in several steps, and the prompt before its media may come from the cache and never be seen here:
    each row is written where its token stands in the prompt, and a row that was never written stays NaN.
    """

    def __init__(self, hidden: int, width: int, *, video_token: int, audio_token: int) -> None:
        super().__init__()
        self.tokens = TokenReadOut(hidden, width).float()
        self.width, self.video_token, self.audio_token = width, video_token, audio_token

    def get_supported_tasks(self) -> set[Any]:
        """One output per token."""
        return {"token_classify"}

    def get_pooling_updates(self, task: Any) -> PoolingParamsUpdate:
        """The prompt's tokens tell which are media."""
        return PoolingParamsUpdate(requires_token_ids=True)

    def forward(self, hidden_states: Tensor, pooling_metadata: PoolingMetadata) -> list[Tensor | None]:
        """One entry per window: its views when its last token has come, else None."""
        cursor = pooling_metadata.get_pooling_cursor()
        windows = zip(
            torch.split(hidden_states, cursor.num_scheduled_tokens_cpu.tolist()),
            pooling_metadata.get_prompt_token_ids_cpu(),
            cursor.seq_lens_cpu.tolist(),
            pooling_metadata.pooling_states,
            cursor.get_finished_mask(),
            strict=True,
        )
        return [self._read(*window) for window in windows]

    def _read(self, states: Tensor, prompt: Tensor, end: int, memory: PoolingStates, last: bool) -> Tensor | None:
        """Write the views of tokens [end - S, end) of a prompt; hand over the whole at its last token."""
        is_video = prompt == self.video_token
        media_at = (is_video | (prompt == self.audio_token)).nonzero()[:, 0]
        if not memory.hidden_states_cache:
            whole = states.new_full((len(media_at), self.width), torch.nan, dtype=torch.float32)
            memory.hidden_states_cache.append(whole)
        begin = end - len(states)
        first, stop = torch.searchsorted(media_at, torch.tensor([begin, end])).tolist()
        here = media_at[first:stop]
        views = self.tokens(states[(here - begin).to(states.device)], is_video[here].to(states.device))
        memory.hidden_states_cache[0][first:stop] = views
        if not last:
            return None
        whole = memory.hidden_states_cache[0]
        memory.clean()
        return whole


class Positions(Qwen2_5OmniPreTrainedModelForConditionalGeneration):
    """No layers: only transformers' rule for the three-axis positions."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.spatial_merge_size = config.vision_config.spatial_merge_size

    def of(self, ids: list[int], grid: Tensor, mels: Tensor, second_per_grid: Tensor) -> tuple[Tensor, int]:
        """Positions [3, L] of a window, and how far they run ahead of its token count."""
        prompt: Any = torch.tensor([ids])
        sizes: dict[str, Any] = {"video_grid_thw": grid.reshape(1, 3), "audio_seqlens": mels.reshape(1)}
        positions, ahead = self.get_rope_index(
            prompt,
            attention_mask=torch.ones_like(prompt),
            use_audio_in_video=True,
            second_per_grids=second_per_grid.reshape(1),
            **sizes,
        )
        return positions[:, 0], int(ahead)


@MULTIMODAL_REGISTRY.register_processor(MediaProcessor, info=WindowInfo, dummy_inputs=WindowDummies)
@default_pooling_type(tok_pooling_type="ALL")
class RapportTeacher(Qwen2_5OmniThinkerForConditionalGeneration):
    """The thinker without its language head, with the per-token read-out in its place."""

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config, width = self.config, vllm_config.model_config.hf_config.token_width
        kinds = {"video_token": config.video_token_id, "audio_token": config.audio_token_id}
        self.language_model.lm_head = PPMissingLayer()
        self.positions = Positions(config)
        self.pooler = MediaPooler(config.text_config.hidden_size, width, **kinds)

    def get_mrope_input_positions(
        self, input_tokens: list[int], mm_features: list[MultiModalFeatureSpec]
    ) -> tuple[Tensor, int]:
        """Transformers' rule for a window; vLLM's for anything else."""
        data = {feature.modality: feature.data for feature in mm_features}
        if set(data) != {"audio", "video"}:
            return super().get_mrope_input_positions(input_tokens, mm_features)
        video, audio = data["video"], data["audio"]
        names = (video["video_grid_thw"], audio["audio_feature_lengths"], video["second_per_grid_ts"])
        return self.positions.of(input_tokens, *(field.data for field in names))

    def embed_input_ids(
        self, input_ids: Tensor, multimodal_embeddings: Any = None, *, is_multimodal: Tensor | None = None
    ) -> Tensor:
        """Words' embeddings with media features put in their places, each kind by itself."""
        embeds = self.language_model.embed_input_ids(input_ids)
        if is_multimodal is None or not multimodal_embeddings:
            return embeds
        ids = input_ids.to(is_multimodal.device)
        is_video, is_audio = (
            is_multimodal & (ids == token) for token in (self.config.video_token_id, self.config.audio_token_id)
        )
        return merge_interleaved_embeddings(embeds, multimodal_embeddings, is_video, is_audio, is_multimodal)


class RapportSpeaker(RapportTeacher):
    """The base thinker with its language head and without the read-out: for descriptions."""

    is_pooling_model = False

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        Qwen2_5OmniThinkerForConditionalGeneration.__init__(self, vllm_config=vllm_config, prefix=prefix)
        self.positions = Positions(self.config)
