"""The hand-over from training to engine: a folder with weights, contract and provenance.

model.safetensors   weights (and activation scales of a quantised student)
spec.json           what the student watches, hears and predicts
quant.json          present when the student is quantised: which layers, which scales
run.json            where it came from
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dyad.provenance import atomic_path, read_json, sha256_file, write_json
from student.calibration import snap_biases
from student.model import Student
from student.quantization import layout_of, quantize
from student.spec import StudentSpec


def save(folder: Path | str, model: Student, run: Mapping[str, Any]) -> None:
    """Write a checkpoint, all or nothing."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    with atomic_path(folder) as part:
        part.mkdir(parents=True)
        save_file(tensors, str(part / "model.safetensors"))
        write_json(part / "spec.json", model.spec.to_dict())
        write_json(part / "run.json", dict(run))
        if layout := layout_of(model):
            write_json(part / "quant.json", layout)


def load(folder: Path | str) -> Student:
    """The student of a checkpoint, in evaluation mode.

    Raises ValueError naming the file when one is missing, damaged or does not fit the spec.
    """
    folder = Path(folder)
    if not (folder / "spec.json").is_file():
        raise ValueError(f"{folder}: no checkpoint there (spec.json is missing); make one with python -m distill.train")
    spec = StudentSpec.from_dict(read_json(folder / "spec.json"), where=str(folder / "spec.json"))
    model = Student(spec)
    if (folder / "quant.json").is_file():
        quantize(model, read_json(folder / "quant.json"))
    weights = folder / "model.safetensors"
    try:
        tensors = load_file(str(weights))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights}: damaged or missing ({error}); train or copy it again") from None
    wanted = model.state_dict()
    odd = sorted(set(tensors) ^ set(wanted))
    odd += [n for n in wanted if n in tensors and tensors[n].shape != wanted[n].shape]
    if odd:
        raise ValueError(f"{weights}: does not fit spec.json; differing: {', '.join(odd[:3])}")
    model.load_state_dict(tensors)
    snap_biases(model)  # what training moved off the grid of the integer sums: torch then says what the engines say
    return model.eval()


def content_hash(folder: Path | str) -> str:
    """Hash of a checkpoint's weights."""
    return sha256_file(Path(folder) / "model.safetensors")
