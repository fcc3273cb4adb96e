"""The graphs that `benchmarks/student.py` times: a preset's step in three forms, its eyes alone, and kernel peaks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dyad.config import load

ROOT = Path(__file__).resolve().parent.parent
Step = Callable[[], object]


def session(path: Path, threads: int = 1) -> Any:
    """An ONNX Runtime session as the engine opens it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def step_of(path: Path, feed: dict[str, Any], threads: int = 1) -> Step:
    """One step on resident input."""
    opened = session(path, threads)
    return lambda: opened.run(None, feed)


class Files:
    """Exported graphs of one preset: float step, signed INT8, CPU flavour of it, and the eyes alone in INT8."""

    def __init__(self, preset: str, folder: Path) -> None:
        import numpy as np
        import onnx
        import torch

        from deploy import export, onnx_flavours, onnx_saturation, parity
        from student.calibration import prepare
        from student.model import Student
        from student.spec import StudentSpec

        torch.manual_seed(0)
        self.spec = load(StudentSpec, ROOT / "configs" / "student" / f"{preset}.yaml")
        model = Student(self.spec).eval()
        stream = parity.recorded_stream(self.spec, 24)
        names = ("frame_u8", "audio", "present")
        whole = [torch.from_numpy(np.stack([s[n] for s in stream]))[None] for n in names]
        model.vision.calibrate(whole[0][0])
        self.paths = {n: folder / f"{preset}_{n}.onnx" for n in ("fp32", "signed", "int8", "eyes")}
        export.export(model, self.paths["fp32"])
        self.feed = {n: stream[0][n][None] for n in names}
        self.states = {n: np.zeros((1, *s), np.float32) for n, s in model.state_shapes().items()}
        prepare(model, [(whole[0], whole[1], whole[2])])
        export.export(model, self.paths["signed"])
        onnx_flavours.to_cpu(self.paths["signed"], self.paths["int8"])
        onnx_saturation.saturate(self.paths["int8"])
        onnx_flavours.fuse_weights(self.paths["signed"])
        self.kernels = onnx_flavours.count_kernels(self.paths["int8"])
        self.multiply_adds = multiply_adds(self._eyes_of("signed"))  # the folded stem multiplies zeros, not counted
        onnx.save(self._eyes_of("int8"), str(self.paths["eyes"]))
        self.megabytes = {n: round(p.stat().st_size / 1e6, 2) for n, p in self.paths.items()}

    def _eyes_of(self, name: str) -> Any:
        """The eyes of a step, cut out: from the picture to the product behind the convolutions."""
        import onnx
        from onnx.utils import Extractor

        model = onnx.shape_inference.infer_shapes(onnx.load(str(self.paths[name])))
        users: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                users.setdefault(name, []).append(node)
        reached, at = [], ["frame_u8"]
        while at:  # everything that depends on nothing but the picture
            for node in users.get(at.pop(), []):
                if node not in reached and node.op_type != "Where":
                    reached.append(node)
                    at += list(node.output)
        last = next(n.output[0] for n in reached if n.op_type == "Gemm")
        return Extractor(model).extract_model(["frame_u8"], [last])

    def step(self, name: str, threads: int = 1) -> Step:
        """One step of a graph."""
        feed = {"frame_u8": self.feed["frame_u8"]} if name == "eyes" else self.feed | self.states
        return step_of(self.paths[name], feed, threads)


def multiply_adds(model: Any) -> int:
    """Of all Conv and Gemm nodes, from the shapes of weights and outputs."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.shape_inference.infer_shapes(model)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
    shapes |= {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.output}
    values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    makers = {n.output[0]: n for n in model.graph.node}
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = values[makers[node.input[1]].input[0]]
            positions = int(np.prod(shapes[node.output[0]][2:])) if node.op_type == "Conv" else 1
            total += weight.size * positions
    return total


def peak_graphs(folder: Path) -> dict[str, tuple[Step, int]]:
    """Single INT8 operators as large as the machine likes them: the best its kernels can do, with multiply-adds."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)

    def graph(kind: str, x: tuple[int, ...], w: tuple[int, ...], **attributes: Any) -> Any:
        values = {
            "w": rng.integers(-127, 128, w).astype(np.int8), "ws": np.full(w[0], 0.01, np.float32),
            "wz": np.zeros(w[0], np.int8), "s": np.float32(0.02), "z": np.uint8(128), "o": np.uint8(0),
            "b": np.zeros(w[0], np.int32), "bs": np.full(w[0], 0.0002, np.float32), "bz": np.zeros(w[0], np.int32),
        }  # fmt: skip
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
            helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0),
            helper.make_node(kind, ["xd", "wd", "bd"], ["y"], **attributes),
            helper.make_node("Relu", ["y"], ["r"]),
            helper.make_node("QuantizeLinear", ["r", "s", "o"], ["q"]),
        ]
        ends = [helper.make_tensor_value_info("x", TensorProto.UINT8, x)]
        out = [helper.make_tensor_value_info("q", TensorProto.UINT8, None)]
        inits = [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]
        made = helper.make_graph(nodes, "peak", ends, out, inits)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    cases = {
        "conv 3x3, 256 channels, 28 px": (
            "Conv", (1, 256, 28, 28), (256, 256, 3, 3), {"pads": [1] * 4, "kernel_shape": [3, 3]}, 28 * 28
        ),
        "conv 1x1, 512 channels, 28 px": (
            "Conv", (1, 512, 28, 28), (512, 512, 1, 1), {"kernel_shape": [1, 1]}, 28 * 28
        ),
        "product 1024 x 1024 x 1024": ("Gemm", (1024, 1024), (1024, 1024), {"transB": 1}, 1024),
    }  # fmt: skip
    made: dict[str, tuple[Step, int]] = {}
    for i, (name, (kind, x, w, attributes, positions)) in enumerate(cases.items()):
        path = folder / f"peak{i}.onnx"
        onnx.save(graph(kind, x, w, **attributes), str(path))
        feed = {"x": rng.integers(0, 256, x, dtype=np.uint8)}
        made[name] = (step_of(path, feed), int(np.prod(w)) * positions)
    return made
