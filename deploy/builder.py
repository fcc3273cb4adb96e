"""The steps of `deploy.build_engine`: quantise if asked, write the format, compare with torch, put in place."""

import copy
import dataclasses
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deploy import engines, export, formats, onnx_flavours, parity, post_training, tensorrt_plan
from deploy.build_engine import STAYS_FLOAT, Config
from deploy.engines import Engine, Tensors
from deploy.engines.onnxruntime import OnnxRuntimeEngine
from deploy.manifest import FILE, Manifest
from dyad.config import as_dict
from dyad.provenance import atomic_path, run_card, sha256_file
from student import checkpoint
from student.model import Student

STAND_IN = "the canonical graph in ONNX Runtime; the plan itself has not run: there is no GPU here"


@torch.no_grad()
def run_torch(model: Student, stream: list[Tensors]) -> NDArray[np.float32]:
    """Probabilities [steps, H, A, 2] of the model over a stream, step by step."""
    state, out = model.init_state(1), []
    for inputs in stream:
        tensors = [torch.from_numpy(inputs[k])[None, None] for k in ("frame_u8", "audio", "present")]
        logits, state = model(*tensors, state)
        out.append(torch.sigmoid(logits[0, 0]).numpy())
    return np.stack(out)


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / FILE).is_file():
        raise ValueError(f"{out}: is neither empty nor an engine, and would be replaced as a whole; give another --out")


def _choose_precision(trained: bool, config: Config) -> str:
    if config.precision == "float32" and trained:
        raise ValueError(
            f"{config.checkpoint}: is quantisation-aware; build its float parent beside it, or use --precision int8"
        )
    if config.calibration is not None and (trained or config.precision == "float32"):
        why = "carries its scales already" if trained else "stays float with --precision float32"
        raise ValueError(f"{config.checkpoint}: {why}, so there is nothing to calibrate; leave out --calibration")
    wanted = trained or config.calibration is not None
    return config.precision if config.precision != "auto" else "int8" if wanted else "float32"


def _models(model: Student, trained: bool, wanted: set[str], config: Config) -> dict[str, Student]:
    """The student in every precision wanted; a float checkpoint's own precision is always among them."""
    if not trained:
        return {"float32": model} | (
            {"int8": post_training.quantised(model, config.calibration, config.steps)} if "int8" in wanted else {}
        )
    if "float32" not in wanted:
        return {"int8": model}
    plain: Any = formats.freeze(copy.deepcopy(model), rounding=False)
    return {"int8": model, "float32": plain}


def build(config: Config) -> dict[str, Any]:
    """Build what the configuration asks for; returns what to tell the user.

    Raises ValueError when a format differs from torch; nothing of it is put in place then.
    """
    names = formats.FORMATS if config.format == "all" else (config.format,)
    places = {n: config.out / n if config.format == "all" else config.out for n in names}
    if config.format == "all" and (config.out / FILE).is_file():
        raise ValueError(f"{config.out}: is an engine; give --format all a folder of its own as --out")
    for place in places.values():
        _refuse_foreign(place)
    runtime = engines.choose(config.target)
    model = checkpoint.load(config.checkpoint)
    trained = export.is_quantised(model)
    chosen = _choose_precision(trained, config)
    precisions = {name: formats.FIXED.get(name, chosen) for name in names}
    stream = parity.recorded_stream(model.spec, config.steps)
    models = _models(model, trained, set(precisions.values()), config)
    says = {precision: run_torch(each, stream) for precision, each in models.items()}
    inputs = {"checkpoint": checkpoint.content_hash(config.checkpoint)}
    card = run_card(command="deploy.build_engine", config=as_dict(config), inputs=inputs)
    report: dict[str, Any] = {}
    if config.target == "auto" and runtime == "onnxruntime" and "engine" in names:
        report["note"] = "no GPU with TensorRT here: built for ONNX Runtime on the CPU"
    for name, place in places.items():
        with atomic_path(place) as part:
            part.mkdir(parents=True)
            precision = precisions[name]
            manifest = _write(name, models[precision], part, precision, runtime, config, card)
            stand_in = OnnxRuntimeEngine(part, manifest) if manifest.parity_on == STAND_IN else None
            if trained and precision == "float32":
                manifest = dataclasses.replace(manifest, flavour="unquantised")
            manifest = _compare(part, manifest, stand_in, stream, says, trained)
            formats.write_info(name, part, manifest)
            told = _tell(part, manifest)
        if config.format == "all":
            runtime_, *rest = told.items()
            told = {name: "; ".join([runtime_[1], *(f"{key} {value}" for key, value in rest)])}
        report |= told
    return report | {"engine" if config.format == "engine" else "folder": str(config.out)}


def _write(
    name: str, model: Student, part: Path, precision: str, runtime: str, config: Config, card: dict[str, Any]
) -> Manifest:
    """Write one format and its manifest, not yet compared."""
    path, runtime, flavour = formats.write(name, model, part, precision=precision, runtime=runtime)
    device: dict[str, str] = {"machine": platform.node()} if runtime == "tensorrt" else {}
    if runtime == "tensorrt_rtx":
        device = tensorrt_plan.build_ahead(part, path, config.compute_capabilities)
    stays: tuple[str, ...] = STAYS_FLOAT if precision == "int8" else ("everything",)
    if flavour == "simulated":
        stays = ("everything: INT8 values in float arithmetic",)
    return Manifest(
        runtime=runtime,
        model=path.name,
        model_sha256=sha256_file(path),
        precision=precision,
        flavour=flavour,
        spec=model.spec,
        states=model.state_shapes(),
        stays_float=stays,
        parity={},
        device=device,
        run=card,
        parity_on=STAND_IN if runtime == "tensorrt_rtx" and not tensorrt_plan.has_driver() else "this engine",
    )


def _compare(
    part: Path,
    manifest: Manifest,
    stand_in: Engine | None,
    stream: list[Tensors],
    says: dict[str, NDArray[np.float32]],
    trained: bool,
) -> Manifest:
    """Open what was written, compare it with torch, and keep the figures; raises ValueError when they are apart."""
    manifest.write(part)
    told = parity.run_engine(stand_in or engines.load(part), stream)
    found = parity.compare(told, says[manifest.precision])
    parity.refuse_if_apart(found, manifest.precision)
    against: dict[str, float] = {}
    if manifest.precision == "int8" and not trained:
        against = parity.compare(told, says["float32"]).to_dict()
    manifest = dataclasses.replace(manifest, parity=found.to_dict(), parity_float=against)
    manifest.write(part)
    return manifest


def _tell(part: Path, manifest: Manifest) -> dict[str, str]:
    """What to print about one format."""
    told = {
        "runtime": f"{manifest.runtime.replace('_', '-')}, {manifest.precision}",
        "parity": str(parity.Parity(**manifest.parity)),  # pyright: ignore[reportArgumentType]
    }
    if manifest.parity_on == STAND_IN:
        told["measured on"] = STAND_IN
    if "compute_capabilities" in manifest.device:
        told["built for"] = f"compute capabilities {manifest.device['compute_capabilities']}"
    if manifest.parity_float:
        told["against float"] = str(parity.Parity(**manifest.parity_float))  # pyright: ignore[reportArgumentType]
    if manifest.runtime == "onnxruntime" and (manifest.flavour == "cpu" or manifest.precision == "float32"):
        kernels = onnx_flavours.count_kernels(part / manifest.model)
        told["products"] = (
            f"{kernels['int8']} in INT8, {kernels['float']} in float, {kernels['matmul']} float by design"
        )
    size = sum((part / n).stat().st_size for n in {manifest.model, manifest.device.get("plan", manifest.model)})
    return told | {"size": f"{size / 1e6:.2f} MB"}
