"""A merged teacher on disk: what `teacher.merge` writes, and both back ends load.

config.json                the whole Omni configuration: transformers takes the thinker's part, vLLM finds our class
model*.safetensors, index  thinker.*: the merged base; pooler.tokens.*: the per-token part of the read-out
heads.safetensors          the whole read-out; vLLM passes over it, because the index does not name it
processor files
teacher.json, run.json     contract ("merged": true, and the hash of the teacher it was made from), run card
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dyad.config import as_dict, from_dict
from dyad.provenance import atomic_path, run_card, write_json
from teacher import adapter
from teacher.heads import ReadOut
from teacher.layout import Layout, layout_of
from teacher.qwen_omni import OmniTeacher, load_base, source_of
from teacher.window_spec import WindowSpec

if TYPE_CHECKING:
    from teacher.merge import Config

ARCHITECTURE = "RapportTeacher"
"""Name under which vLLM knows `teacher.backends.vllm_model`."""
INDEX = "model.safetensors.index.json"


def write(config: Config) -> float:
    """Merge and write; returns the gigabytes of the weights."""
    mark = adapter.teacher_hash(config.teacher)
    teacher, contract = adapter.load(config.teacher, config.base)
    released = _dtype_of(source_of(config.base or contract["model"], config.teacher))
    dtype = released if config.dtype == "auto" else getattr(torch, config.dtype)
    thinker = teacher.thinker.merge_and_unload().to(dtype)
    state = {f"thinker.{name}": tensor for name, tensor in thinker.state_dict().items()}
    state |= {f"pooler.tokens.{name}": tensor for name, tensor in teacher.read_out.tokens.state_dict().items()}
    card = run_card(command="teacher.merge", config=as_dict(config), inputs={"teacher": mark})
    with atomic_path(config.out) as part:
        part.mkdir(parents=True)
        size = _save_weights(part, state, config.shard_gb)
        _save_config(part, thinker.config, dtype, contract["read_out"]["token_width"])
        teacher.processor.save_pretrained(str(part))
        shutil.copyfile(config.teacher / "heads.safetensors", part / "heads.safetensors")
        write_json(part / "run.json", card)
        said = {"merged": True, "merged_from": mark, "dtype": str(dtype).removeprefix("torch.")}
        write_json(part / "teacher.json", contract | said)
    return size / 1e9


def _dtype_of(source: str) -> torch.dtype:
    """What a base was released in; bfloat16 where it does not say."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniThinkerConfig

    config: Any = Qwen2_5OmniThinkerConfig.from_pretrained(source)
    return config.dtype or torch.bfloat16


def _save_weights(folder: Path, state: dict[str, Tensor], shard_gb: float) -> int:
    """Shards with an index, which is written for a single file too: a loader that sees one reads what it names."""
    from huggingface_hub import save_torch_state_dict, split_torch_state_dict_into_shards

    limit = int(shard_gb * 1e9)
    save_torch_state_dict(state, folder, max_shard_size=limit)
    if not (folder / INDEX).is_file():
        split = split_torch_state_dict_into_shards(state, max_shard_size=limit)
        write_json(folder / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    return sum(path.stat().st_size for path in folder.glob("model*.safetensors"))


def _save_config(folder: Path, thinker: Any, dtype: torch.dtype, token_width: int) -> None:
    """The released models' outer configuration around the thinker's, so that every loader finds what it looks for."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniConfig

    thinker.dtype = dtype
    inner = {key: value for key, value in thinker.to_dict().items() if key != "_name_or_path"}  # of this machine
    outer = Qwen2_5OmniConfig(thinker_config=inner, enable_audio_output=False)
    outer.architectures, outer.dtype, outer.token_width = [ARCHITECTURE], dtype, token_width
    outer.save_pretrained(str(folder))


# ---- loading -----------------------------------------------------------------------------------------------


def load(folder: Path, contract: dict[str, Any]) -> OmniTeacher:
    """A merged teacher in evaluation mode, through transformers; `contract` is its teacher.json, checked already."""
    if not (folder / INDEX).is_file():
        raise ValueError(f"{folder}/{INDEX}: missing; merge again with python -m teacher.merge")
    thinker, processor, _ = load_base(str(folder), folder)
    spec = from_dict(WindowSpec, contract["window"], where=str(folder / "teacher.json"))
    teacher = OmniTeacher(thinker, processor, spec, contract["prompt"], contract["read_out"])
    adapter.load_read_out(folder, teacher.read_out)
    return teacher.eval()


def load_read_out(folder: Path) -> tuple[ReadOut, Layout, WindowSpec]:
    """All of a merged teacher but the thinker, for a back end that runs the thinker elsewhere."""
    from transformers import Qwen2_5OmniProcessor
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniThinkerConfig

    contract = adapter.read_contract(folder)
    spec = from_dict(WindowSpec, contract["window"], where=str(folder / "teacher.json"))
    config: Any = Qwen2_5OmniThinkerConfig.from_pretrained(str(folder))
    tokens = {"video_token": config.video_token_id, "audio_token": config.audio_token_id}
    layout = layout_of(Qwen2_5OmniProcessor.from_pretrained(str(folder)), spec, contract["prompt"], **tokens)
    per_grid = len(layout.video_rows) // layout.grids
    read_out = ReadOut(config.text_config.hidden_size, per_grid, **contract["read_out"])
    adapter.load_read_out(folder, read_out)
    return read_out.eval(), layout, spec
