"""Engines of a few operators: what goes in decides what comes out, so the loop is tested without a trained student.

`write` makes a real engine folder that ONNX Runtime opens: unit k's log-odds rise with the crop's brightness at every
horizon alike, so a light picture is a strong expression. `FakeEngine` answers with whatever a test hands it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.manifest import Manifest
from dyad.provenance import sha256_file
from student.spec import StudentSpec


def manifest(spec: StudentSpec, model_sha256: str = "") -> Manifest:
    return Manifest(
        runtime="onnxruntime",
        model="student.onnx",
        model_sha256=model_sha256,
        precision="float32",
        flavour="cpu",
        spec=spec,
        states={"steps": (1,)},
        stays_float=(),
        parity={},
        device={},
        run={},
    )


def write(folder: Path, spec: StudentSpec | None = None, *, gain: float = 6.0, offset: float = -3.0) -> Path:
    """Log-odds = gain · brightness + offset for every unit and horizon; the state counts the steps."""
    spec = spec or StudentSpec()
    shape = [len(spec.horizons), len(spec.au_names), 2]
    inputs = {
        "frame_u8": (TensorProto.UINT8, [1, spec.crop_px, spec.crop_px, 3]),
        "audio": (TensorProto.FLOAT, [1, spec.audio_window_samples]),
        "present": (TensorProto.FLOAT, [1, 2]),
        "steps": (TensorProto.FLOAT, [1, 1]),
    }
    constants = {
        "scale": np.array(gain / 255, np.float32),
        "offset": np.array(offset, np.float32),
        "one": np.array(1, np.float32),
        "quiet": np.array(0, np.float32),
        "shape": np.array(shape, np.int64),
        "all": np.array([1, 2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frame_u8"], ["frame"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["frame", "all"], ["bright"], keepdims=0),
        helper.make_node("Mul", ["bright", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["seen"]),
        helper.make_node("ReduceMean", ["audio"], ["loud"], keepdims=0),
        helper.make_node("ReduceMean", ["present"], ["here"], keepdims=0),
        helper.make_node("Add", ["loud", "here"], ["other"]),
        helper.make_node("Mul", ["other", "quiet"], ["nothing"]),
        helper.make_node("Add", ["seen", "nothing"], ["value"]),
        helper.make_node("Expand", ["value", "shape"], ["logits"]),
        helper.make_node("Add", ["steps", "one"], ["steps_next"]),
    ]
    outputs = {"logits": shape, "steps_next": [1, 1]}
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "student.onnx")
    manifest(spec, sha256_file(folder / "student.onnx")).write(folder)
    return folder


Answer = Callable[[int, dict[str, Any]], NDArray[np.float32]]


def logits(spec: StudentSpec, prob: float | NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Log-odds [H, A, 2] whose probabilities are `prob`, broadcast over [H, A]."""
    full = np.broadcast_to(np.clip(prob, 1e-4, 1 - 1e-4), (len(spec.horizons), len(spec.au_names)))
    return np.repeat(np.log(full / (1 - full))[..., None], 2, axis=-1).astype(np.float32)


class FakeEngine:
    """Answers step n with `answer(n, inputs)`; remembers what it was shown and how often it started afresh."""

    name = "fake"

    def __init__(self, answer: Answer, spec: StudentSpec | None = None) -> None:
        self.manifest = manifest(spec or StudentSpec())
        self.inputs: list[dict[str, Any]] = []
        self.starts = 0
        self._answer = answer

    def init_state(self) -> dict[str, NDArray[Any]]:
        self.starts += 1
        return {"steps": np.zeros((1, 1), np.float32)}

    def step(
        self, inputs: dict[str, Any], state: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
        self.inputs.append(inputs)
        return self._answer(len(self.inputs) - 1, inputs), {"steps": state["steps"] + 1}
