"""The student as files that others expect: TorchScript, exported program, float ONNX, INT8 ONNX.

    engine            student.onnx, for the run-time asked for            deploy.run
    torchscript       student.ts, torch.jit.trace of the one-frame step   torch.jit.load
    exported-program  student.pt2, torch.export of the same step          torch.export.load
    onnx              student.onnx, float                                 any ONNX run-time
    quantized         student.onnx, canonical INT8 Q/DQ pairs             TensorRT and other ONNX run-times

Each is a folder that `deploy.engines.load` opens, so that formats can be stepped and compared; `model_info.json` says
what a reader needs who knows nothing of this repository. All share one signature, that of `deploy.export`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.manifest import Manifest
from dyad.provenance import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from student.model import Student

INFO = "model_info.json"
FORMATS = ("engine", "torchscript", "exported-program", "onnx", "quantized")
FIXED = {"onnx": "float32", "quantized": "int8"}
"""Formats that have one precision only; the others take the checkpoint's or the one asked for."""
FILES = {"torchscript": "student.ts", "exported-program": "student.pt2"}
"""The rest is student.onnx."""


def _round_to(scale: float, x: "Tensor") -> "Tensor":
    """The value on the grid of an activation scale, as fake quantisation computes it."""
    import torch

    from student.quantization import LEVELS

    return torch.clamp(torch.round(x / scale), -LEVELS - 1, LEVELS) * scale


def freeze(model: "nn.Module", *, rounding: bool = True) -> "nn.Module":
    """Plain layers for a fake-quantised model, in place: rounded weights are stored, activations rounded in float.

    What is computed stays what it was; nothing is left that neither TorchScript nor torch.export can store. Without
    `rounding` the quantisers are dropped: the float function of the same weights.
    """
    import torch
    from torch import nn

    from student.quantization import LEVELS, ActivationQuantizer, QuantConv2d, QuantLinear, weight_scale

    for module in list[Any](model.modules()):
        for end in ("input", "output"):
            quantizer = getattr(module, f"{end}_quantizer", None)
            if not isinstance(quantizer, ActivationQuantizer):
                continue
            setattr(module, f"{end}_quantizer", nn.Identity())
            if rounding:
                _hook(module, end, float(quantizer.scale))
        if isinstance(module, QuantConv2d | QuantLinear):
            if rounding:
                scale = weight_scale(module.weight).reshape([-1] + [1] * (module.weight.ndim - 1))
                with torch.no_grad():
                    module.weight.copy_(torch.clamp(torch.round(module.weight / scale), -LEVELS - 1, LEVELS) * scale)
            layer: Any = module
            layer.__class__ = nn.Conv2d if isinstance(module, QuantConv2d) else nn.Linear
    return model


def _hook(module: Any, end: str, scale: float) -> None:
    """Round what goes into a layer, or what comes out of it."""
    if end == "input":
        module.register_forward_pre_hook(lambda _module, inputs: (_round_to(scale, inputs[0]),))
    else:
        module.register_forward_hook(lambda _module, _inputs, output: _round_to(scale, output))


def _write_torch(name: str, model: "Student", path: Path) -> None:
    """TorchScript or exported program of the step; both hold the rounded weights of a quantised student."""
    import copy
    import io
    import warnings

    import torch

    from deploy.export import Step

    step = Step(freeze(copy.deepcopy(model)).eval())  # pyright: ignore[reportArgumentType]
    spec = model.spec
    frame = torch.zeros(1, spec.crop_px, spec.crop_px, 3, dtype=torch.uint8)
    example = (frame, torch.zeros(1, spec.audio_window_samples), torch.ones(1, 2), *model.init_state(1))
    with torch.no_grad():
        if name == "exported-program":
            torch.export.save(torch.export.export(step, example), path)
            return
        with warnings.catch_warnings():  # torch announces the end of TorchScript; the format is still asked for
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes become constants: all of them are fixed
            whole = io.BytesIO()  # on a full disk torch's own writer ends the process instead of raising
            torch.jit.save(torch.jit.trace(step, example), whole)
        path.write_bytes(whole.getvalue())


def write(name: str, model: "Student", folder: Path, *, precision: str, runtime: str) -> tuple[Path, str, str]:
    """Write one format of a model that has this precision already.

    Args:
        name: one of FORMATS.
        model: quantised for int8, else float.
        folder: where to; exists.
        precision: int8 or float32.
        runtime: file in deploy/engines; counts for "engine" only.

    Returns:
        The file, the run-time that opens it, and its flavour.

    """
    path = folder / FILES.get(name, "student.onnx")
    if name in FILES:
        _write_torch(name, model, path)
        return path, "torch", "simulated" if precision == "int8" else "canonical"
    from deploy import export, onnx_flavours, onnx_saturation

    if name != "engine":
        runtime = "onnxruntime"
    export.export(model, path)
    flavour = "canonical"
    if precision == "int8" and name == "engine" and runtime == "onnxruntime":
        onnx_flavours.to_cpu(path, path)
        onnx_saturation.saturate(path)
        flavour = "cpu"
    elif precision == "int8":
        onnx_flavours.fuse_weights(path)
    return path, runtime, flavour


def _tensor(name: str, shape: tuple[int, ...], dtype: str = "float32", **more: str) -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": dtype, **more}


def write_info(name: str, folder: Path, manifest: Manifest) -> None:
    """Write `model_info.json`: what goes in, what comes out, how good it is."""
    spec = manifest.spec
    picture = (1, spec.crop_px, spec.crop_px, 3)
    states = {n: (1, *shape) for n, shape in manifest.states.items()}
    plan = (len(spec.horizons), len(spec.au_names), 2)
    files = sorted(p for p in folder.iterdir() if p.name != INFO)
    write_json(
        folder / INFO,
        {
            "format": name,
            "file": manifest.model,
            "sha256": manifest.model_sha256,
            "precision": manifest.precision,
            "flavour": manifest.flavour,
            "stays_float": list(manifest.stays_float),
            "call": f"logits, *next_states = model(frame_u8, audio, present, {', '.join(states)}): one frame",
            "inputs": [
                _tensor("frame_u8", picture, "uint8", meaning="face crop, RGB"),
                _tensor("audio", (1, spec.audio_window_samples), meaning="samples that end with the frame, in [-1, 1]"),
                _tensor("present", (1, 2), meaning="1 where there is a face, where there is sound; else 0"),
            ],
            "states": [_tensor(n, shape, first="zeros", returned_as=f"{n}_next") for n, shape in states.items()],
            "outputs": [
                _tensor("logits", plan, meaning="log-odds [horizon, unit, (intensity, activation)]"),
                *(_tensor(f"{n}_next", shape) for n, shape in states.items()),
            ],
            "au_names": list(spec.au_names),
            "horizons_frames": list(spec.horizons),
            "fps": spec.fps,
            "sample_rate_hz": spec.sample_rate_hz,
            "sizes_bytes": {p.name: p.stat().st_size for p in files},
            "parity_with_torch": manifest.parity,
            "parity_measured_on": manifest.parity_on,
            "parity_with_float": manifest.parity_float,
            "device": manifest.device,
            "versions": manifest.run.get("versions", {}),
        },
    )
