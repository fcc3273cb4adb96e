"""The CPU flavour reads the camera's bytes: the same numbers as the float picture, bit for bit, with fewer nodes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from deploy import onnx_stem


def stem(path: Path, crop: int = 16, *, shift: float = 128.0, stride: int = 2, channels: int = 8) -> None:
    """A quantised first convolution with its successor, as `onnx_flavours` leaves them."""
    rng = np.random.default_rng(0)
    values = {
        "shift": np.float32(shift), "step": np.float32(1 / 128), "zero": np.uint8(128),
        "weight": rng.integers(-127, 128, (channels, 3, 3, 3)).astype(np.int8),
        "scales": rng.uniform(0.001, 0.01, channels).astype(np.float32), "zeros": np.zeros(channels, np.int8),
        "bias": rng.integers(-900, 900, channels).astype(np.int32), "none": np.zeros(channels, np.int32),
        "out": np.float32(0.02), "bottom": np.uint8(0),
    }  # fmt: skip
    values["bias_scales"] = values["scales"] / np.float32(128)
    nodes = [
        helper.make_node("Cast", ["frame_u8"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "shift"], ["centred"]),
        helper.make_node("Mul", ["centred", "step"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["picture"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["picture", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["w"], axis=0),
        helper.make_node("DequantizeLinear", ["bias", "bias_scales", "none"], ["b"], axis=0),
        helper.make_node(
            "Conv", ["dq", "w", "b"], ["conv"], strides=[stride] * 2, pads=[1] * 4, kernel_shape=[3, 3], group=1
        ),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("QuantizeLinear", ["relu", "out", "bottom"], ["oq"]),
        helper.make_node("DequantizeLinear", ["oq", "out", "bottom"], ["y"]),
    ]
    side = crop // stride
    graph = helper.make_graph(
        nodes, "stem",
        [helper.make_tensor_value_info("frame_u8", TensorProto.UINT8, [1, crop, crop, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, side, side])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


def run(path: Path, frame: np.ndarray) -> np.ndarray:
    import onnxruntime as ort

    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"frame_u8": frame})[0]


def operators(path: Path) -> list[str]:
    return [n.op_type for n in onnx.load(str(path)).graph.node]


def test_bytes_give_what_the_float_picture_gave_bit_for_bit(tmp_path: Path) -> None:
    path, frame = tmp_path / "g.onnx", np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    stem(path)
    before = run(path, frame)
    assert onnx_stem.take_bytes(path)
    assert before.std() > 0
    np.testing.assert_array_equal(run(path, frame), before)
    assert "Cast" not in operators(path)


def test_a_picture_of_another_width_keeps_its_convolution_but_is_still_read_as_bytes(tmp_path: Path) -> None:
    path, frame = tmp_path / "g.onnx", np.random.default_rng(1).integers(0, 256, (1, 18, 18, 3), dtype=np.uint8)
    stem(path, 18)
    before = run(path, frame)
    assert onnx_stem.take_bytes(path)
    np.testing.assert_array_equal(run(path, frame), before)
    assert "Reshape" not in operators(path)


@pytest.mark.parametrize("change", [{"shift": 127.0}])
def test_pixels_that_are_not_on_the_grid_of_bytes_are_left_alone(tmp_path: Path, change: dict[str, float]) -> None:
    stem(tmp_path / "g.onnx", **change)
    content = (tmp_path / "g.onnx").read_bytes()
    assert not onnx_stem.take_bytes(tmp_path / "g.onnx")
    assert (tmp_path / "g.onnx").read_bytes() == content


def test_the_folded_kernel_equals_the_original_convolution() -> None:
    rng = np.random.default_rng(2)
    weight, frame = rng.integers(-9, 9, (5, 3, 3, 3)).astype(np.int8), rng.integers(0, 9, (1, 8, 12, 3))
    picture = torch.from_numpy(frame).permute(0, 3, 1, 2).double()
    want = torch.nn.functional.conv2d(picture, torch.from_numpy(weight).double(), stride=2, padding=1)
    cells = torch.from_numpy(frame.reshape(1, 8, 3, 12)).permute(0, 3, 1, 2).double()
    folded = torch.from_numpy(onnx_stem.folded_weight(weight)).double()
    got = torch.nn.functional.conv2d(torch.nn.functional.pad(cells, (1, 0, 1, 1)), folded, stride=(2, 1))
    got = got.permute(0, 2, 3, 1).reshape(1, 4, 6, 5).permute(0, 3, 1, 2)
    assert torch.equal(got, want)
