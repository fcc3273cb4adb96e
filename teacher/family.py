"""Which bases the teacher's reading of tokens is right for: Qwen2.5-Omni's, and no other family's.

Qwen3-Omni's thinker differs where this package counts tokens and places adapters (transformers' Qwen3OmniMoeThinker):
patches of 16 px; 13 sound tokens from each second by three strided convolutions, so 40 ms slots would drift; DeepStack,
which adds picture features to the first layers of the language model and not to its input alone; and experts stacked in
one tensor, which LoRA on linear layers does not reach.
"""

from pathlib import Path

from dyad.provenance import read_json

KNOWN = ("qwen2_5_omni", "qwen2_5_omni_thinker")


def require_known(folder: Path, model: str) -> None:
    """Raises ValueError when the base in `folder`, asked for as `model`, is of another family."""
    config = folder / "config.json"
    kind = read_json(config).get("model_type", "none") if config.is_file() else KNOWN[0]
    if kind in KNOWN:
        return
    why = "it is not a Qwen2.5-Omni"
    if kind.startswith("qwen3_omni_moe"):
        why = (
            "its patches are 16 px, its sound tokens 13 to a second, its pictures enter several layers (DeepStack) and "
            "its experts are out of LoRA's reach"
        )
    raise ValueError(f"--model {model}: model_type {kind!r} cannot be tuned: {why}; use a Qwen2.5-Omni or tiny")
