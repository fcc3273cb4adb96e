"""Feed a CPU the camera's own bytes: no float picture, and a first convolution with channels enough for the kernels.

The canonical graph turns pixels into floats, (x - 128)/128, and quantises them again at a scale of 1/128: the bytes
that went in. In the CPU flavour they go straight into the first convolution (zero point 128).

A picture has three channels, too few for ONNX Runtime's fast INT8 convolution. In memory [h, w, 3] is also
[h, w/4, 12], so four columns become one cell of twelve channels, and the 3x3 stride-2 convolution becomes one of 3x2
over cells that gives two output columns at once, which again only a change of shape takes apart. The same products and
sums: the result is bit for bit the same.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

FOLD = 4
"""Columns of a cell."""


class _Stem:
    """Look-ups along the path of the picture."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.values |= {
            n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"
        }

    def users(self, name: str) -> list[Any]:
        """Nodes that read a tensor."""
        return [n for n in self.graph.node if name in n.input]

    def chain(self, name: str, *ops: str) -> list[Any] | None:
        """The nodes named `ops`, each the only user of the one before, from tensor `name` on."""
        nodes: list[Any] = []
        for op in ops:
            users = self.users(name)
            if len(users) != 1 or users[0].op_type != op:
                return None
            nodes.append(users[0])
            name = users[0].output[0]
        return nodes


def take_bytes(path: Path) -> bool:
    """Let the first convolution of a CPU-flavour graph read the pixels as they are; returns whether it could."""
    model = onnx.load(str(path))
    graph: Any = model.graph
    stem = _Stem(graph)
    found = stem.chain(
        "frame_u8", "Cast", "Sub", "Mul", "Transpose", "QuantizeLinear", "DequantizeLinear", "Conv", "Relu"
    ) or stem.chain("frame_u8", "Cast", "Sub", "Mul", "Transpose", "QuantizeLinear", "DequantizeLinear", "Conv")
    if found is None:
        return False
    cast, shift, gain, turn, quantise, dequantise, conv = found[:7]
    constants = [stem.values.get(name) for name in (shift.input[1], gain.input[1], *quantise.input[1:3])]
    if any(c is None or c.size != 1 for c in constants):
        return False
    if [float(c.item()) for c in constants if c is not None] != [128.0, 1 / 128, 1 / 128, 128.0]:
        return False
    for node in (cast, shift, gain, quantise):
        graph.node.remove(node)
    turn.input[0] = "frame_u8"
    dequantise.input[0] = turn.output[0]
    if len(found) == 8:
        _fold_columns(stem, turn, conv, found[7])
    del graph.value_info[:]
    path.write_bytes(model.SerializeToString())
    return True


def folded_weight(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """Kernel [O, 3, 3, 3] of a stride-2 convolution with padding 1 → [2·O, 12, 3, 2] over cells of four columns.

    Output column 2j + p of a cell reads columns 2p - 1 … 2p + 1 of it; column -1 is the last of the cell before.
    """
    out = weight.shape[0]
    folded = np.zeros((2 * out, FOLD * 3, 3, 2), weight.dtype)
    for phase in range(2):
        for kx in range(3):
            cell, column = divmod(2 * phase + kx - 1, FOLD)
            folded[phase * out : (phase + 1) * out, column * 3 : column * 3 + 3, :, cell + 1] = weight[..., kx]
    return folded


def _fold_columns(stem: _Stem, turn: Any, conv: Any, relu: Any) -> None:
    """Rewrite the convolution over cells of four columns where it is 3x3, stride 2, padding 1, with bias and scales."""
    frame = next(i for i in stem.graph.input if i.name == "frame_u8")
    high, wide = (d.dim_value for d in frame.type.tensor_type.shape.dim[1:3])
    settings = {a.name: helper.get_attribute_value(a) for a in conv.attribute}
    wanted = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3], "group": 1, "dilations": [1, 1]}
    absent = {"kernel_shape": [3, 3], "group": 1, "dilations": [1, 1]}  # what ONNX takes for an attribute left out
    makers = {n.output[0]: n for n in stem.graph.node}
    quantised = stem.chain(relu.output[0], "QuantizeLinear")
    parts = [makers.get(name) for name in conv.input[1:]]  # DequantizeLinear of weight and bias
    if wide % FOLD or high % 2 or quantised is None or len(parts) != 2 or None in parts:
        return
    if "auto_pad" in settings or any(settings.get(k, absent.get(k)) != v for k, v in wanted.items()):
        return
    for part, fold in zip(parts, (folded_weight, lambda v: np.tile(v, 2)), strict=True):
        assert part is not None
        for i, change in enumerate((fold, _twice, _twice)):
            _replace(stem, part, i, change(stem.values[part.input[i]]))
    _set(conv, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 0])
    out = stem.values[parts[0].input[1]].shape[0] // 2  # pyright: ignore[reportOptionalMemberAccess]
    _reshape(stem, "frame_u8", [1, high, wide // FOLD, FOLD * 3], turn, 0, before=turn)
    # back to [1, h/2, w/2, O]: cells hold two columns, phase before channel
    done = quantised[0]
    readers, name = stem.users(done.output[0]), done.output[0]
    nodes = [
        helper.make_node("Transpose", [name], ["stem_rows"], perm=[0, 2, 3, 1]),
        helper.make_node(
            "Reshape", ["stem_rows", _constant(stem, np.array([1, high // 2, wide // 2, out]), "shape")], ["stem_apart"]
        ),
        helper.make_node("Transpose", ["stem_apart"], ["stem_out"], perm=[0, 3, 1, 2]),
    ]
    at = list(stem.graph.node).index(done) + 1
    for i, node in enumerate(nodes):
        stem.graph.node.insert(at + i, node)
    for reader in readers:
        for i, source in enumerate(reader.input):
            if source == name:
                reader.input[i] = "stem_out"


def _twice(values: NDArray[Any]) -> NDArray[Any]:
    return np.tile(values, 2) if values.ndim else values


def _replace(stem: _Stem, node: Any, slot: int, values: NDArray[Any]) -> None:
    node.input[slot] = _constant(stem, values, f"stem_{slot}")


def _constant(stem: _Stem, values: NDArray[Any], stem_name: str) -> str:
    name = f"{stem_name}_{len(stem.graph.initializer)}_folded"
    values = np.asarray(values)
    stem.graph.initializer.append(numpy_helper.from_array(values, name))
    stem.values[name] = values
    return name


def _reshape(stem: _Stem, source: str, shape: list[int], user: Any, slot: int, before: Any) -> None:
    node = helper.make_node("Reshape", [source, _constant(stem, np.array(shape), "shape")], ["frame_cells"])
    stem.graph.node.insert(list(stem.graph.node).index(before), node)
    user.input[slot] = "frame_cells"


def _set(node: Any, **attributes: list[int]) -> None:
    kept = [a for a in node.attribute if a.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])
