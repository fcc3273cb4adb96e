"""Attention for the three parts of the thinker, without a loop over pieces and without a mask in memory.

The library's towers call attention piece by piece from Python (a 10 s window of 224 px has 100 pieces in a layer);
pieces of one length go through one call here. After a kept prompt the library spells out a mask of all pairs, which
bars the kernels that know causality; queries padded to the length of the keys need none. And the picture tower's first
convolution, whose kernel is its stride, is the matrix product that it is.
Shapes: B windows, N tokens.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIECES = "rapport_flash_pieces"
"""With "flash" in the name the towers hand over where pieces begin, instead of looping."""
AFTER_PROMPT = "rapport_after_prompt"


def use(thinker: Any) -> None:
    """Let a thinker attend this way; its answers stay the same, up to rounding. Padded batches are not for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(PIECES, in_pieces)
    AttentionInterface.register(AFTER_PROMPT, after_prompt)
    for tower in (thinker.visual, thinker.audio_tower):
        tower.config._attn_implementation = PIECES
    thinker.model.config._attn_implementation = AFTER_PROMPT
    thinker.visual.patch_embed.forward = MethodType(_patches_to_tokens, thinker.visual.patch_embed)


def in_pieces(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *_: Any,
    scaling: float,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **__: Any,
) -> tuple[Tensor, None]:
    """[1, heads, N, width] → [1, N, heads, width]; every token sees its own piece, whole."""
    pieces, count = len(cu_seq_lens_q) - 1, query.shape[2]
    if pieces * max_length_q == count:
        q, k, v = (t[0].unflatten(1, (pieces, -1)).transpose(0, 1) for t in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, scale=scaling)
        return out.transpose(1, 2).reshape(1, count, query.shape[1], -1), None
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
    out = torch.cat([F.scaled_dot_product_attention(*part, scale=scaling) for part in parts], dim=2)
    return out.transpose(1, 2), None


def after_prompt(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, scaling: float, **__: Any
) -> tuple[Tensor, None]:
    """[B, heads, new, width] of the last tokens → [B, new, heads, width]; each sees itself and all before it."""
    done = key.shape[2] - query.shape[2]
    single = query.shape[2] == 1
    padded = query if single else F.pad(query, (0, 0, done, 0))
    out = F.scaled_dot_product_attention(padded, key, value, is_causal=not single, scale=scaling, enable_gqa=True)
    return (out if single else out[:, :, done:]).transpose(1, 2), None


def _patches_to_tokens(self: Any, hidden_states: Tensor) -> Tensor:
    """[patches, values] → [patches, width]."""
    weight = self.proj.weight
    return F.linear(hidden_states.to(weight.dtype), weight.flatten(1))
