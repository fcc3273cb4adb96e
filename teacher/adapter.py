"""A tuned teacher on disk: adapter, read-out, processor and contract in one folder.

adapter/            LoRA weights (peft)
heads.safetensors   the read-out
teacher.json        base model, AU set, window, prompt hash, read-out sizes
run.json            where it came from
base/               the base itself, for `tiny` only
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.config import from_dict
from dyad.provenance import read_json, sha256_bytes, sha256_file, write_json
from teacher.qwen_omni import OmniTeacher, load_base
from teacher.window_spec import WindowSpec

PROMPT = Path(__file__).parent / "prompt.txt"


def prompt_text() -> str:
    """The task prompt with the units filled in."""
    return PROMPT.read_text(encoding="utf8").format(units=", ".join(SEED17.units)).strip()


def save(folder: Path, teacher: OmniTeacher, contract: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Write a teacher; teacher.json comes last, so that a folder with it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teacher.json").unlink(missing_ok=True)  # a kill between here and the end leaves no half-new teacher
    teacher.thinker.save_pretrained(str(folder / "adapter"))
    heads = {k: v.detach().cpu().contiguous() for k, v in teacher.read_out.state_dict().items()}
    save_file(heads, str(folder / "heads.safetensors"))
    write_json(folder / "run.json", dict(run))
    write_json(folder / "teacher.json", dict(contract))


def load(folder: Path | str) -> tuple[OmniTeacher, dict[str, Any]]:
    """A tuned teacher in evaluation mode, and its contract.

    Raises ValueError naming what is missing, or made for another base, AU set or rate.
    """
    from peft import PeftModel

    folder = Path(folder)
    if not (folder / "teacher.json").is_file():
        raise ValueError(f"{folder}: no teacher there (teacher.json is missing); make one with python -m teacher.tune")
    contract = read_json(folder / "teacher.json")
    if tuple(contract["au_names"]) != SEED17.units or contract["fps"] != FPS:
        raise ValueError(
            f"{folder}: tuned for other action units or another rate; tune again for {SEED17.name}, {FPS} Hz"
        )
    thinker, processor, source = load_base(contract["model"], folder)
    found = base_hash(source)
    if found != contract["base_hash"]:
        raise ValueError(f"{folder}: the adapter was made for another base than {source}; use the one it was tuned on")
    thinker = PeftModel.from_pretrained(thinker, str(folder / "adapter"))
    spec = from_dict(WindowSpec, contract["window"], where=str(folder / "teacher.json"))
    teacher = OmniTeacher(thinker, processor, spec, prompt_text(), contract["read_out"])
    try:
        missing, odd = teacher.read_out.load_state_dict(load_file(str(folder / "heads.safetensors")), strict=False)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder}/heads.safetensors: damaged or missing ({error}); tune again") from None
    if missing or odd:
        raise ValueError(f"{folder}/heads.safetensors: does not fit teacher.json ({(missing + odd)[0]}); tune again")
    return teacher.eval(), contract


def base_hash(source: str) -> str:
    """What identifies a base: the hash of its configuration where it is a folder, else its name."""
    config = Path(source) / "config.json"
    return sha256_file(config)[:16] if config.is_file() else sha256_bytes(source.encode())[:16]


def teacher_hash(folder: Path) -> str:
    """Hash of everything that the labels depend on."""
    parts = [sha256_file(folder / "heads.safetensors"), sha256_file(folder / "teacher.json")]
    parts += [sha256_file(p) for p in sorted((folder / "adapter").glob("*.safetensors"))]
    return sha256_bytes("".join(parts).encode())[:16]


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
