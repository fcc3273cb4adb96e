"""A tiny random Qwen2.5-Omni: the real classes at toy size, built locally, for laptops and tests.

Same code path as the released models: it is saved as a folder and loaded from there. Its answers mean nothing until it
is tuned, and little after; it exists so that every line runs without a download.
"""

from pathlib import Path
from typing import Any

from dyad.provenance import atomic_path

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|vision_pad|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
)
NAMED = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
WIDTH = 96


def _byte_letters() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in byte order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def build_processor() -> Any:
    """A processor with a byte-level vocabulary and the released model's special tokens."""
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        WhisperFeatureExtractor,
    )

    vocabulary = {letter: i for i, letter in enumerate(_byte_letters())}
    vocabulary |= {token: 256 + i for i, token in enumerate(SPECIAL)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], extra_special_tokens=NAMED)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=WhisperFeatureExtractor(feature_size=128),
        tokenizer=tokenizer,
        chat_template="",
    )


def build_config(processor: Any) -> Any:
    """The configuration, every field that matters written out: the class defaults are not the released model."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniThinkerConfig

    ids = processor.tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 4, 4]}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={
            "d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128,
            "num_mel_bins": 128, "n_window": 100, "output_dim": WIDTH,
        },
        vision_config={
            "depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112, "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": len(processor.tokenizer), "hidden_size": WIDTH, "intermediate_size": 256,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_parameters": rope,
            "tie_word_embeddings": False,
        },
        audio_token_index=ids("<|AUDIO|>"),
        image_token_index=ids("<|IMAGE|>"),
        video_token_index=ids("<|VIDEO|>"),
        audio_start_token_id=ids("<|audio_bos|>"),
        audio_end_token_id=ids("<|audio_eos|>"),
        position_id_per_seconds=25,
        seconds_per_chunk=2,
    )  # fmt: skip
    config.vision_start_token_id = ids("<|vision_bos|>")
    config.vision_end_token_id = ids("<|vision_eos|>")
    return config


def build(folder: Path, seed: int = 0) -> Path:
    """Build and save the tiny model unless it is there; returns its folder."""
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration

    torch.manual_seed(seed)
    processor = build_processor()
    model = Qwen2_5OmniThinkerForConditionalGeneration(build_config(processor))
    with atomic_path(folder) as part:
        part.mkdir(parents=True)
        model.save_pretrained(part)
        processor.save_pretrained(part)
    return folder
