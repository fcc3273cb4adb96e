"""vLLM's engine on a machine without a GPU: the few operators its CUDA wheel lacks there, in plain torch.

For tests alone, and only for tiny models: attention goes window by window, in float32. vLLM must not have been
imported before `install` or `engine`.
Shapes: S tokens of a step, H heads, N key-value heads, D head width, P pages of Z tokens.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor

ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the operators are known in this process alone
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}

SCHEMAS = (
    "init_cpu_memory_env(int[] nodes) -> int[]",
    (
        "get_scheduler_metadata(int num_reqs, int num_heads, int num_kv_heads, int head_dim, Tensor seq_lens, "
        "ScalarType dtype, Tensor query_start_loc, bool causal, int window, str isa, bool split, "
        "Tensor? dynamic_causal, str kv_cache_dtype) -> Tensor"
    ),
    (
        "cpu_attn_reshape_and_cache(Tensor key, Tensor value, Tensor(a!) key_cache, Tensor(b!) value_cache, "
        "Tensor slots, str isa, float k_scale, float v_scale, str kv_cache_dtype) -> ()"
    ),
    (
        "cpu_attention_with_kv_cache(Tensor query, Tensor key_cache, Tensor value_cache, Tensor(a!) output, "
        "Tensor query_start_loc, Tensor seq_lens, float scale, bool causal, Tensor? alibi, int window, "
        "Tensor block_table, float softcap, Tensor metadata, Tensor? sinks, Tensor? dynamic_causal, float k_scale, "
        "float v_scale, str kv_cache_dtype) -> ()"
    ),
    "greedy_argmax(Tensor logits) -> Tensor",
)


def _slots(
    num_tokens: int,
    max_num_tokens: int,
    query_start_loc: Tensor,
    positions: Tensor,
    block_table: Tensor,
    stride: int,
    slot_mapping: Tensor,
    block_size: int,
    *_: object,
) -> None:
    """Where in the cache each token of a step goes; the arguments of vLLM's Triton kernel, in its order."""
    starts = query_start_loc.tolist()
    for row, (begin, end) in enumerate(itertools.pairwise(starts)):
        at = positions[begin:end]
        slot_mapping[begin:end] = block_table[row, at // block_size].long() * block_size + at % block_size
    slot_mapping[num_tokens:max_num_tokens] = -1


def _write(key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slots: Tensor, *_: object) -> None:
    """Keys and values [S, N, D] into pages [P, N, Z, D]."""
    known = slots >= 0
    page, place = slots[known] // key_cache.shape[2], slots[known] % key_cache.shape[2]
    key_cache[page, :, place] = key[: len(slots)][known]
    value_cache[page, :, place] = value[: len(slots)][known]


def _attend(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    output: Tensor,
    query_start_loc: Tensor,
    seq_lens: Tensor,
    scale: float,
    causal: bool,
    alibi: Tensor | None,
    window: int,
    block_table: Tensor,
    *_: object,
) -> None:
    """Causal attention of each window's new tokens [S, H, D] to all of its tokens so far."""
    assert causal
    assert alibi is None
    assert window == -1
    starts, shared = query_start_loc.tolist(), query.shape[1] // key_cache.shape[1]
    for row, total in enumerate(seq_lens.tolist()):
        span = slice(starts[row], starts[row + 1])
        pages = block_table[row, : -(-total // key_cache.shape[2])].long()
        keys, values = (
            cache[pages].transpose(1, 2).flatten(0, 1)[:total].repeat_interleave(shared, dim=1).float()
            for cache in (key_cache, value_cache)
        )
        scores = torch.einsum("shd,thd->hst", query[span].float(), keys) * scale
        place = torch.arange(total)
        later = place[None] > place[total - (span.stop - span.start) :, None]
        weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
        output[span] = torch.einsum("hst,thd->shd", weights, values).to(output.dtype)


def install() -> torch.library.Library:
    """Define the operators, for a process of its own; they last as long as what is returned."""
    os.environ.update(ENVIRONMENT)
    import vllm._custom_ops  # noqa: F401 - defines the operators that the wheel does have
    from vllm.utils import cpu_triton_utils

    cpu_triton_utils._compute_slot_mapping_kernel_impl = _slots
    library = torch.library.Library("_C", "FRAGMENT")
    bodies = (lambda *_: [], lambda *_: torch.empty(0), _write, _attend, lambda logits: logits.argmax(dim=-1))
    for schema, body in zip(SCHEMAS, bodies, strict=True):
        library.define(schema)
        library.impl(schema.split("(")[0], body, "CompositeExplicitAutograd")
    return library


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """Room for one engine: the operators while it lasts, and its process groups torn down after it."""
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    with patch.dict(os.environ):
        library = install()
        yield
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
    library._destroy()
    torch.set_num_threads = set_threads  # vLLM put one there that refuses
    torch.set_num_threads(threads)
