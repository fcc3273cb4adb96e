"""The serving back end: vLLM runs the thinker of a merged teacher, many windows at a time.

All windows of a call are handed over at once and batched continuously. The task prompt before the media is the same in
every window: its keys and values are computed once and reused (vLLM's prefix cache, which it leaves off for token-wise
outputs because the outputs of reused tokens would be missing; ours are those of media tokens, which are never reused,
since every window is submitted under a name of its own).
"""

import importlib.util
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dyad.provenance import read_json
from teacher import adapter, merged
from teacher.merge import is_merged
from teacher.windows import SpeakerMedia, cut

SAMPLE_RATE = 16000
SPEAKER = "RapportSpeaker"
"""Name under which vLLM knows the base model that describes."""
Window = tuple[NDArray[np.uint8], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """How vLLM uses the machine."""

    gpu_memory_utilization: float = 0.85
    """Share of each GPU's memory that vLLM takes."""
    max_num_batched_tokens: int = 16384
    """Tokens of one step, over all windows in it."""
    max_num_seqs: int = 64
    """Windows in flight."""
    tensor_parallel_size: int = 1
    """GPUs that share one model."""
    enforce_eager: bool = False
    """No compilation: starts faster, runs slower."""
    prefix_caching: bool = True
    """Compute the task prompt once."""
    preprocessing_threads: int = 4
    """Windows whose pictures and sound are made ready at a time."""

    def __post_init__(self) -> None:
        """Refuse what vLLM cannot run with."""
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"gpu_memory_utilization must be within 0 … 1, got {self.gpu_memory_utilization}")
        counts = (self.max_num_batched_tokens, self.max_num_seqs, self.tensor_parallel_size, self.preprocessing_threads)
        if min(counts) < 1:
            raise ValueError(
                "max_num_batched_tokens, max_num_seqs, tensor_parallel_size and preprocessing_threads must be 1 or more"
            )


def register() -> None:
    """Make our model classes known to vLLM; entry point of the group vllm.general_plugins, called in each process."""
    from vllm import ModelRegistry  # pyright: ignore[reportAttributeAccessIssue]

    for name in (merged.ARCHITECTURE, SPEAKER):
        ModelRegistry.register_model(name, f"teacher.backends.vllm_model:{name}")


class VllmBackend:
    """A merged teacher through vLLM."""

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        """Start the engine; raises ValueError where the folder, the library or the GPU is missing."""
        self.config = config or Config()
        _refuse(folder)
        from vllm import LLM  # pyright: ignore[reportAttributeAccessIssue]

        register()
        read_out, layout, self.spec = merged.load_read_out(folder)
        self._ids: list[int] = layout.ids.tolist()
        self._prompt = self._folded(int(layout.ids[layout.media_at[layout.video_rows[0]]]), layout.media_at)
        self._names: Iterator[int] = itertools.count()
        dtype = read_json(folder / "teacher.json")["dtype"]  # vLLM's own choice for float32 would be float16
        self.engine: Any = LLM(model=str(folder), runner="pooling", dtype=dtype, **self._options())
        device = adapter.device()  # only now: vLLM wants to be the first on the GPU
        self.read_out, self.layout = read_out.to(device), layout.to(device)

    def _folded(self, video_token: int, media_at: torch.Tensor) -> list[int]:
        """The prompt with one token for all media and the sound's marks around them; the processor unfolds it."""
        return [*self._ids[: int(media_at[0]) - 1], video_token, *self._ids[int(media_at[-1]) + 2 :]]

    def _options(self) -> dict[str, Any]:
        """What vLLM is started with: limits as wide as our windows, so that it reserves no memory for more."""
        config, spec = self.config, self.spec
        return {
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "max_num_seqs": config.max_num_seqs,
            "tensor_parallel_size": config.tensor_parallel_size,
            "enforce_eager": config.enforce_eager,
            "enable_prefix_caching": config.prefix_caching,
            "renderer_num_workers": config.preprocessing_threads,
            "max_model_len": len(self._ids) + 1,
            "mm_processor_cache_gb": 0,  # no window comes twice
            "limit_mm_per_prompt": {
                "image": 0,
                "audio": {"count": 1, "length": spec.samples},
                "video": {"count": 1, "num_frames": spec.pictures, "width": spec.size_px, "height": spec.size_px},
            },
        }

    def _request(self, pictures: NDArray[np.uint8], sound: NDArray[np.float32]) -> dict[str, Any]:
        """One window, under a name that no other window has."""
        name = f"window{next(self._names)}"
        return {
            "prompt_token_ids": list(self._prompt),
            "multi_modal_data": {"video": [pictures], "audio": [(sound, SAMPLE_RATE)]},
            "multi_modal_uuids": {"video": [f"{name} pictures"], "audio": [f"{name} sound"]},
            "mm_processor_kwargs": {"use_audio_in_video": True, "fps": self.spec.video_fps},
        }

    def features(self, speaker: SpeakerMedia, at: Sequence[int]) -> NDArray[np.float32]:
        """See `Backend`; raises ValueError naming a window for which the model gave no numbers."""
        windows = [cut(speaker, start, self.spec) for start in at]
        views = self._ask(windows)
        odd = _odd(views)
        if odd:  # put off for lack of memory, a window may find its own beginning in the cache: ask anew
            views[odd] = self._ask([windows[i] for i in odd])
            odd = _odd(views)
        if odd:
            raise ValueError(f"window at frame {at[odd[0]]}: no finite numbers; merge with --dtype float32")
        return views

    def _ask(self, windows: Sequence[Window]) -> NDArray[np.float32]:
        """One round through the engine; rows that it could not tell are NaN."""
        from vllm import PoolingParams  # pyright: ignore[reportAttributeAccessIssue]

        requests = [self._request(*window) for window in windows]
        params = PoolingParams(task="token_classify", skip_reading_prefix_cache=not self.config.prefix_caching)
        answers = self.engine.encode(requests, params, pooling_task="token_classify", use_tqdm=False)
        assert all(answer.prompt_token_ids == self._ids for answer in answers)
        return np.stack([answer.outputs.data.float().cpu().numpy() for answer in answers])


def _odd(views: NDArray[np.float32]) -> list[int]:
    """Which windows have a number that is none."""
    return np.flatnonzero(~np.isfinite(views).all(axis=(1, 2))).tolist()


def _refuse(folder: Path) -> None:
    """Raise ValueError, with what to do, where vLLM cannot serve this folder here."""
    if not is_merged(folder):
        raise ValueError(
            f"{folder}: not a merged teacher, which is what vLLM serves; make one with "
            f"python -m teacher.merge --teacher {folder} --out DIR"
        )
    if importlib.util.find_spec("vllm") is None:
        raise ValueError("vLLM is not installed; run uv sync --extra vllm, or label with --backend transformers")
    if not torch.cuda.is_available() and os.environ.get("VLLM_TARGET_DEVICE") != "cpu":
        raise ValueError("vLLM needs a GPU and there is none here; label with --backend transformers")
