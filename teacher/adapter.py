"""A tuned teacher on disk: adapter, read-out, processor and contract in one folder.

adapter/            LoRA weights (peft)
heads.safetensors   the read-out
processor/          tokenizer, image and sound processors
teacher.json        base model and its hash, AU set, window, prompt, read-out sizes
run.json            where it came from
base/               the base itself, for `tiny` only

A merged teacher (`teacher.merge`) is loaded by the same call.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dyad.action_units import SEED17
from dyad.clock import FPS
from dyad.config import as_dict, from_dict
from dyad.provenance import read_json, sha256_bytes, sha256_file, write_json
from teacher.heads import ReadOut
from teacher.prompt import prompt_text  # noqa: F401 - part of what a teacher is, so it is asked for here
from teacher.qwen_omni import OmniTeacher, folder_of, load_base, source_of
from teacher.window_spec import WindowSpec

SAMPLED_BYTES = 1 << 20


def contract_of(teacher: OmniTeacher, *, model: str, source: str, read_out: Mapping[str, Any]) -> dict[str, Any]:
    """What travels with a teacher: everything that its weights do not say. `model` as asked for, `source` as found."""
    return {
        "model": str(Path(model).absolute()) if Path(model).is_dir() else model,
        "base_hash": base_hash(source),
        "au_names": list(SEED17.units),
        "fps": FPS,
        "window": as_dict(teacher.spec),
        "read_out": dict(read_out),
        "prompt": teacher.prompt,
    }


def save(
    folder: Path,
    teacher: OmniTeacher,
    contract: Mapping[str, Any],
    run: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a teacher; teacher.json comes last, so that a folder with it is whole.

    `weights` are whole copies of what was tuned, by name, where processes hold shards of it.
    """
    tuned = dict(teacher.named_parameters()) if weights is None else weights
    adapters, heads = (_under(tuned, part) for part in ("thinker.", "read_out."))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "teacher.json").unlink(missing_ok=True)  # a kill between here and the end leaves no half-new teacher
    teacher.thinker.save_pretrained(str(folder / "adapter"), state_dict=adapters)
    save_file(heads, str(folder / "heads.safetensors"))
    teacher.processor.save_pretrained(str(folder / "processor"))
    write_json(folder / "run.json", dict(run))
    write_json(folder / "teacher.json", dict(contract))


def _under(weights: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Those of a part of the teacher, by their names in it."""
    return {k.removeprefix(part): v.detach().cpu().contiguous() for k, v in weights.items() if k.startswith(part)}


def load(folder: Path | str, base: str | None = None) -> tuple[OmniTeacher, dict[str, Any]]:
    """A tuned teacher in evaluation mode, merged or not, and its contract; `base` says where its base lies now.

    Raises ValueError naming what is missing, or made for another base, AU set or rate.
    """
    folder = Path(folder)
    contract = read_contract(folder)
    if contract.get("merged"):
        from teacher import merged

        return merged.load(folder, contract), contract
    model = base or contract["model"]
    _require_base(folder, contract, source_of(model, folder))
    thinker, processor, _ = load_base(model, folder)
    thinker = _with_adapter(thinker, folder / "adapter")
    spec = from_dict(WindowSpec, contract["window"], where=str(folder / "teacher.json"))
    teacher = OmniTeacher(thinker, processor, spec, contract["prompt"], contract["read_out"])
    load_read_out(folder, teacher.read_out)
    return teacher.eval(), contract


def _with_adapter(thinker: Any, folder: Path) -> Any:
    """The thinker with a teacher's LoRA; raises ValueError where it is damaged, missing or of another size."""
    from peft import PeftModel

    lacking = [n for n in ("adapter_config.json", "adapter_model.safetensors") if not (folder / n).is_file()]
    try:
        if lacking:
            raise ValueError(f"{lacking[0]} is missing")
        return PeftModel.from_pretrained(thinker, str(folder))
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"{folder}: no adapter can be read there ({str(error).splitlines()[0]}); tune again") from None


def read_contract(folder: Path) -> dict[str, Any]:
    """A teacher's contract; raises ValueError where there is none, or one of other units or another rate."""
    if not (folder / "teacher.json").is_file():
        raise ValueError(f"{folder}: no teacher there (teacher.json is missing); make one with python -m teacher.tune")
    contract = read_json(folder / "teacher.json")
    wanted = ("model", "base_hash", "au_names", "fps", "window", "read_out", "prompt")
    lacking = [k for k in wanted if not isinstance(contract, dict) or k not in contract]
    if lacking:
        raise ValueError(f"{folder}/teacher.json: lacks {', '.join(lacking)}; restore it or tune again")
    if tuple(contract["au_names"]) != SEED17.units:
        odd = sorted(set(contract["au_names"]) ^ set(SEED17.units)) or ["the order"]
        raise ValueError(
            f"{folder}: tuned for other action units ({', '.join(odd)} differ); tune again for {SEED17.name}"
        )
    if contract["fps"] != FPS:
        raise ValueError(f"{folder}: tuned for another rate ({contract['fps']} Hz); tune again for {FPS} Hz")
    return contract


def load_read_out(folder: Path, read_out: ReadOut) -> None:
    """Fill a read-out with a teacher's weights; raises ValueError where they are damaged or do not fit."""
    path = folder / "heads.safetensors"
    try:
        missing, odd = read_out.load_state_dict(load_file(str(path)), strict=False)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged, missing or of other sizes ({error}); tune again") from None
    if missing or odd:
        raise ValueError(f"{path}: does not fit teacher.json ({(missing + odd)[0]}); tune again")


def _require_base(folder: Path, contract: Mapping[str, Any], source: str) -> None:
    """Refuse another base than the adapter was made for, before its gigabytes are read."""
    try:
        found = base_hash(source)
    except OSError:
        return  # not at hand: loading it says so, and what to do
    if found != contract["base_hash"]:
        raise ValueError(
            f"{folder}: the adapter was made for another base ({contract['model']}) than {source}; pass the one it was "
            "tuned on with --base, or tune again"
        )


def base_hash(source: str) -> str:
    """What identifies a base: its configuration, and size, head and tail of each of its weight files.

    The whole of a large model would take minutes to hash; another training or another seed shows in a part of it.
    """
    folder = folder_of(source)
    parts = [sha256_file(folder / "config.json")]
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            head = file.read(SAMPLED_BYTES)
            file.seek(max(path.stat().st_size - SAMPLED_BYTES, 0))
            parts.append(f"{path.stat().st_size} {sha256_bytes(head)} {sha256_bytes(file.read(SAMPLED_BYTES))}")
    return sha256_bytes("\n".join(parts).encode())[:16]


def teacher_hash(folder: Path) -> str:
    """Hash of everything that the labels depend on."""
    parts = [sha256_file(folder / "heads.safetensors"), sha256_file(folder / "teacher.json")]
    parts += [sha256_file(p) for p in sorted((folder / "adapter").glob("adapter_*"))]
    parts += [sha256_file(p) for p in [folder / "config.json"] if p.is_file()]  # a merged one: precision of its weights
    return sha256_bytes("".join(parts).encode())[:16]


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
