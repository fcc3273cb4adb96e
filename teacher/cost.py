"""What labelling costs, from the numbers of a configuration alone: tokens, arithmetic, memory.

Two operations per multiply-add; matrix products and convolutions are counted, which is all that takes time, and
attention of every token over all that it could see, masked or not (the usual convention). Overlapping windows that go
through the model together share pictures, which then go through the picture tower once (`teacher.plan` counts them).
Neither torch nor weights are needed.
Shapes: T frames, L tokens of a window, G video grids, K audio tokens.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyad.clock import SAMPLE_RATE_HZ
from teacher.prompt import around_media, prompt_text
from teacher.window_spec import WindowSpec

Config = Mapping[str, Any]

HEAD_WIDTH = 32
MEL_HZ = 100


def _released(text: Config) -> dict[str, Any]:
    """A released thinker in the form of its config.json: the towers are the same in all sizes."""
    audio = {
        "d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
        "num_mel_bins": 128, "n_window": 100, "output_dim": text["hidden_size"],
    }  # fmt: skip
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
        "in_channels": 3, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "out_hidden_size": text["hidden_size"],
    }  # fmt: skip
    return {"audio_config": audio, "vision_config": vision, "text_config": dict(text)}


RELEASED: dict[str, dict[str, Any]] = {
    "3b": _released({
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "tie_word_embeddings": False,
    }),
    "7b": _released({
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
    }),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens of one window: the prompt before the media, the media, and the few that close the turn."""

    prompt: int
    video: int
    audio: int
    closing: int
    exact: bool = True
    """False where the prompt was counted without the model's tokenizer."""

    @property
    def media(self) -> int:
        """Tokens that are read out."""
        return self.video + self.audio

    @property
    def total(self) -> int:
        """Length of the sequence."""
        return self.prompt + self.media + self.closing


def tokens_of(config: Config, spec: WindowSpec, base: Path | None = None, prompt: str | None = None) -> Tokens:
    """Tokens of a window; those of `prompt` (the task's own) are exact when `base` holds the model's tokenizer.json."""
    vision = config["vision_config"]
    side = spec.size_px // vision["patch_size"] // vision["spatial_merge_size"]
    counted = [_count(text, base) for text in around_media(prompt or prompt_text())]
    return Tokens(
        prompt=counted[0],
        video=grids_of(config, spec) * side**2,
        audio=_audio_lengths(config["audio_config"], spec)[1],
        closing=counted[1],
        exact=_tokenizer(base) is not None,
    )


def _tokenizer(base: Path | None) -> Path | None:
    return base / "tokenizer.json" if base is not None and (base / "tokenizer.json").is_file() else None


def _count(text: str, base: Path | None) -> int:
    """Tokens of a text; without a tokenizer, its special tokens, words, digits and punctuation marks."""
    path = _tokenizer(base)
    if path is None:
        return len(re.findall(r"<\|\w+\|>|[A-Za-z]+|\d|\n|[^\sA-Za-z\d]+", text))
    from tokenizers import Tokenizer

    return len(Tokenizer.from_file(str(path)).encode(text).ids)


def _audio_lengths(audio: Config, spec: WindowSpec) -> tuple[list[int], int]:
    """Mel frames of the pieces in which a window's sound is read, and its tokens."""
    mel = spec.samples * MEL_HZ // SAMPLE_RATE_HZ
    whole, rest = divmod(mel, 2 * audio["n_window"])
    pieces = [2 * audio["n_window"]] * whole + [rest] * (rest > 0)
    return pieces, (_half(mel) - 2) // 2 + 1


def _half(length: int) -> int:
    """Length after a convolution of stride 2."""
    return (length - 1) // 2 + 1


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations of one window."""

    vision: float
    audio: float
    language: float
    """The language model, after the prompt when that is kept."""
    head: float
    """The language head; 0 where it is skipped."""
    read_out: float

    @property
    def total(self) -> float:
        """All together."""
        return self.vision + self.audio + self.language + self.head + self.read_out


def flops_of(
    config: Config,
    spec: WindowSpec,
    tokens: Tokens,
    read_out: Config | None = None,
    *,
    keeps_prompt: bool = True,
    head: bool = False,
    sub_networks: int = 0,
    grids: float | None = None,
) -> Flops:
    """Operations for one window; `keeps_prompt` and no `head` is what our own back end does.

    `grids` go through the picture tower for it: all that it shows, or fewer where windows share them.
    """
    text = config["text_config"]
    grids = grids_of(config, spec) if grids is None else grids
    new = tokens.total - (tokens.prompt if keeps_prompt else 0)
    return Flops(
        vision=grids * _vision(config["vision_config"], spec),
        audio=_audio(config["audio_config"], spec),
        language=language(text, new, tokens.total),
        head=2.0 * tokens.total * text["hidden_size"] * text["vocab_size"] if head else 0.0,
        read_out=_read_out(text["hidden_size"], spec, tokens, read_out, sub_networks) if read_out else 0.0,
    )


def grids_of(config: Config, spec: WindowSpec) -> int:
    """Grids that a window shows."""
    return spec.pictures // config["vision_config"]["temporal_patch_size"]


def language(text: Config, new: int, seen: int) -> float:
    """Operations of the language model for `new` tokens that look at `seen`."""
    width, inner = text["hidden_size"], text["intermediate_size"]
    heads, kv, per_head = _heads(text)
    linear = 2 * width * heads * per_head + 2 * width * kv * per_head + 3 * width * inner
    return 2.0 * text["num_hidden_layers"] * new * (linear + 2 * seen * heads * per_head)


def _heads(text: Config) -> tuple[int, int, int]:
    """Query heads, key-value heads and the width of one."""
    heads = text["num_attention_heads"]
    return heads, text["num_key_value_heads"], text.get("head_dim") or text["hidden_size"] // heads


def _vision(vision: Config, spec: WindowSpec) -> float:
    """Operations of the picture tower for a grid: most layers look within windows, a few at the whole of it."""
    width, merge = vision["hidden_size"], vision["spatial_merge_size"]
    patches, squares = (spec.size_px // vision["patch_size"]) ** 2, _window_sides(vision, spec)
    pairs = {True: patches**2, False: sum((h * w) ** 2 for h in squares for w in squares)}
    linear = patches * (4 * width**2 + 3 * width * vision["intermediate_size"])
    total = patches * _patch_values(vision) * width
    for layer in range(vision["depth"]):
        total += linear + 2 * pairs[layer in vision["fullatt_block_indexes"]] * width
    merged = width * merge**2
    return 2.0 * (total + patches // merge**2 * merged * (merged + vision["out_hidden_size"]))


def _window_sides(vision: Config, spec: WindowSpec) -> list[int]:
    """Side in patches of each attention window along an axis; the last may be smaller."""
    merge, side = vision["spatial_merge_size"], spec.size_px // vision["patch_size"]
    step = vision["window_size"] // merge // vision["patch_size"] * merge
    return [min(step, side - at) for at in range(0, side, step)]


def _patch_values(vision: Config) -> int:
    """Numbers in a patch of pictures."""
    return vision.get("in_channels", 3) * vision["temporal_patch_size"] * vision["patch_size"] ** 2


def _audio(audio: Config, spec: WindowSpec) -> float:
    """Operations of the sound tower, whose attention stays within a piece; the last piece is padded for the stem."""
    width, (pieces, tokens) = audio["d_model"], _audio_lengths(audio, spec)
    longest, lengths = max(pieces), [_half(n) for n in pieces]
    stem = 3 * width * len(pieces) * (longest * audio["num_mel_bins"] + _half(longest) * width)
    linear = sum(lengths) * (4 * width**2 + 2 * width * audio["encoder_ffn_dim"])
    layers = audio["encoder_layers"] * (linear + 2 * width * sum(n**2 for n in lengths))
    return 2.0 * (stem + layers + tokens * width * audio["output_dim"])


def _read_out(hidden: int, spec: WindowSpec, tokens: Tokens, sizes: Config, sub_networks: int) -> float:
    """Operations of `teacher.heads`, with its heads once more for each sub-network."""
    frames, grids = spec.frames, spec.pictures // 2
    narrow, width, units = sizes["token_width"], sizes["width"], sizes["units"]
    features = (tokens.video // grids + 1) * narrow
    aligned = frames * (tokens.video + tokens.audio) * narrow
    trunk = tokens.media * hidden * narrow + aligned + frames * width * (features + sizes["span"] + width)
    heads = frames * units * HEAD_WIDTH * (width + 2 * sizes["horizons"])
    return 2.0 * (trunk + (1 + sub_networks) * heads)


def parameters(config: Config) -> dict[str, int]:
    """Parameters by part."""
    vision, audio, text = config["vision_config"], config["audio_config"], config["text_config"]
    v, a, t, words = vision["hidden_size"], audio["d_model"], text["hidden_size"], text["vocab_size"]
    heads, kv, per_head = _heads(text)
    block = 4 * (v**2 + v) + vision["intermediate_size"] * (3 * v + 2) + v + 2 * v
    merged = v * vision["spatial_merge_size"] ** 2
    merger = v + merged**2 + merged + (merged + 1) * vision["out_hidden_size"]
    hearing = 4 * a**2 + 3 * a + 2 * a * audio["encoder_ffn_dim"] + audio["encoder_ffn_dim"] + a + 4 * a
    stem = 3 * a * audio["num_mel_bins"] + a + 3 * a**2 + a
    ends = 2 * audio["output_dim"] + 2 * a + (a + 1) * audio["output_dim"]
    layer = (t + 1) * (heads + 2 * kv) * per_head + heads * per_head * t + 3 * t * text["intermediate_size"] + 2 * t
    tied = text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
    return {
        "vision": vision["depth"] * block + _patch_values(vision) * v + merger,
        "audio": stem + audio["encoder_layers"] * hearing + ends,
        "language": text["num_hidden_layers"] * layer + t,
        "embeddings": words * t,
        "head": 0 if tied else words * t,
    }


def kv_bytes_per_token(config: Config, width_bytes: int = 2) -> int:
    """Bytes of keys and values per token."""
    _, kv, per_head = _heads(config["text_config"])
    return 2 * config["text_config"]["num_hidden_layers"] * kv * per_head * width_bytes
