"""Re-express the canonical signed INT8 graph for ONNX Runtime on a CPU.

ONNX Runtime folds a ReLU into a convolution, and reaches its fast kernels, only with unsigned activations; the signed
graph runs several times slower there. The values stay the same:

(a) a pair fed by a ReLU becomes unsigned with zero point 0 and the same scale: the same grid, which only goes further
    up (a scale of 127/255 would be finer, but no longer what training saw and TensorRT runs);
(b) every other activation pair becomes unsigned with zero point 128 and the same scale: the very same grid;
(c) float biases of quantised layers become int32, scale = input scale x weight scale;
(d) weights are stored as INT8, and the pixels are read as the bytes that they are (`onnx_stem`).

With (a) and (c) off the result equals the canonical graph bit for bit. (c) moves a sum by less than a step of its grid,
which the next rounding may turn into a step: engines are compared with torch statistically.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy import onnx_stem

RECTIFIERS = ("Relu", "Clip", "Sigmoid")
MOVERS = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
"""Nodes that move values without changing them."""


class _Graph:
    """Look-ups over a graph that is being rewritten."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph: Any = model.graph
        self.values = {i.name: numpy_helper.to_array(i) for i in self.graph.initializer}
        self.maker = {output: node for node in self.graph.node for output in node.output}
        self._count = 0
        for node in self.graph.node:
            if node.op_type == "Constant":
                self.values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def constant(self, value: np.ndarray, stem: str) -> str:
        """A new initializer; returns its name."""
        self._count += 1
        name = f"{stem}_{self._count}"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.values[name] = value
        return name


def to_cpu(canonical: Path, target: Path, *, unsigned_relu: bool = True, integer_bias: bool = True) -> None:
    """Write the CPU flavour of a canonical graph; rules (a) and (c) can be left out to prove the rest exact."""
    model = onnx.load(str(canonical))
    graph = _Graph(model)
    for node in list(graph.graph.node):
        if node.op_type == "QuantizeLinear" and node.input[0] not in graph.values:
            _unsigned(graph, node, unsigned_relu)
    for node in list(graph.graph.node):
        if integer_bias and node.op_type in ("Conv", "Gemm", "MatMul"):
            _integer_bias(graph, node)
    del model.graph.value_info[:]
    target.write_bytes(model.SerializeToString())
    fuse_weights(target)
    onnx_stem.take_bytes(target)


def _unsigned(graph: _Graph, quantise: Any, unsigned_relu: bool) -> None:
    """Make one activation pair unsigned, rules (a) and (b)."""
    scale = graph.values[quantise.input[1]]
    before = graph.maker.get(quantise.input[0])
    while before is not None and before.op_type in MOVERS:  # ONNX Runtime moves the pair in front of these
        before = graph.maker.get(before.input[0])
    rectified = unsigned_relu and before is not None and before.op_type in RECTIFIERS
    names = (
        graph.constant(np.asarray(scale, np.float32).reshape(()), "scale"),
        graph.constant(np.array(0 if rectified else 128, np.uint8), "zero"),
    )
    for node in graph.graph.node:
        if node is quantise or (node.op_type == "DequantizeLinear" and node.input[0] == quantise.output[0]):
            node.input[1] = names[0]
            if len(node.input) > 2:
                node.input[2] = names[1]
            else:
                node.input.append(names[1])


def _dequantised(graph: _Graph, name: str) -> Any | None:
    node = graph.maker.get(name)
    if node is not None and node.op_type in MOVERS:
        node = graph.maker.get(node.input[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _integer_bias(graph: _Graph, node: Any) -> None:
    """Rule (c) for one convolution or product."""
    if len(node.input) < 3 or node.input[2] not in graph.values:
        return
    data, weight = _dequantised(graph, node.input[0]), _dequantised(graph, node.input[1])
    if data is None or weight is None:
        return
    scale = (graph.values[data.input[1]] * graph.values[weight.input[1]]).astype(np.float32).reshape(-1)
    bias = graph.values[node.input[2]].astype(np.float64)
    whole = np.clip(np.round(bias / scale), -(2**31), 2**31 - 1).astype(np.int32)
    output = f"{node.output[0]}_bias"
    names = [graph.constant(whole, "bias"), graph.constant(scale, "bias_scale")]
    names.append(graph.constant(np.zeros(len(scale), np.int32), "bias_zero"))
    pair = helper.make_node("DequantizeLinear", names, [output], axis=0)
    graph.graph.node.insert(list(graph.graph.node).index(node), pair)
    node.input[2] = output


def fuse_weights(path: Path) -> None:
    """Store weights as INT8: a QuantizeLinear on a constant is computed now, so that the file is a quarter the size."""
    model = onnx.load(str(path))
    graph = _Graph(model)
    for node in list(graph.graph.node):
        if node.op_type != "QuantizeLinear" or node.input[0] not in graph.values:
            continue
        weight, scale = graph.values[node.input[0]], graph.values[node.input[1]]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        shape = [1] * weight.ndim
        if scale.ndim:
            shape[axis] = -1
        whole = np.clip(np.round(weight / scale.reshape(shape)), -128, 127).astype(np.int8)
        name = graph.constant(whole, "weight")
        for user in graph.graph.node:
            for i, source in enumerate(user.input):
                if source == node.output[0]:
                    user.input[i] = name
        graph.graph.node.remove(node)
    used = {name for node in graph.graph.node for name in node.input} | {o.name for o in graph.graph.output}
    for initializer in list(graph.graph.initializer):
        if initializer.name not in used:
            graph.graph.initializer.remove(initializer)
    for node in list(graph.graph.node):
        if node.op_type == "Constant" and node.output[0] not in used:
            graph.graph.node.remove(node)
    del model.graph.value_info[:]
    path.write_bytes(model.SerializeToString())


def count_kernels(path: Path) -> dict[str, int]:
    """How many products the optimised graph runs in INT8 and in float, as ONNX Runtime will execute it.

    Keys: `int8` (QLinearConv, QGemm, QLinearMatMul …), `float` (Conv, Gemm and fused forms), `matmul` (float MatMul:
    attention products and the Fourier transform, which stay float).
    """
    import tempfile

    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        ops = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
    whole = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
    return {
        "int8": sum(o in whole for o in ops),
        "float": sum(o in ("Conv", "FusedConv", "Gemm", "FusedGemm", "NhwcFusedConv") for o in ops),
        "matmul": sum(o in ("MatMul", "FusedMatMul") for o in ops),
        "nodes": len(ops),
    }
