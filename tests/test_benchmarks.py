"""What the benchmarks compute besides time: half-rises, multiply-adds, ratios, and the README's figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import figures
from benchmarks.planted_lags import AFTER, BEFORE, answered_by, half_rise_s
from dyad.synthetic.listener import REACTIONS


@pytest.mark.parametrize("lag_frames", [6, 15, 40])
def test_a_step_that_rises_over_ten_frames_is_half_way_five_frames_after_its_lag(lag_frames: int) -> None:
    t = np.arange(BEFORE + AFTER) - BEFORE
    curve = 0.1 + 0.6 * np.clip((t - lag_frames) / 10, 0, 1)
    assert half_rise_s(curve) == pytest.approx((lag_frames + 5) / 30, abs=0.02)


def test_a_flat_curve_has_no_lag() -> None:
    assert np.isnan(half_rise_s(np.full(BEFORE + AFTER, 0.3)))


def test_every_kind_of_event_is_answered_by_a_unit_with_a_planted_lag() -> None:
    for kind in REACTIONS:
        unit, lag_s = answered_by(kind)
        assert unit.startswith("AU")
        assert 0.1 < lag_s < 2


def test_the_readme_holds_the_figures_of_the_results_files() -> None:
    for name, table in (
        ("student", figures.speed),
        ("distillation", figures.quality),
        ("int8_cost", figures.cost),
    ):
        path = figures.RESULTS / f"{name}.json"
        text = table(json.loads(path.read_text(encoding="utf8")))
        assert text in (figures.ROOT / "README.md").read_text(encoding="utf8")


def test_multiply_adds_of_a_graph_are_counted_from_its_shapes(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from benchmarks.step_files import multiply_adds

    weights = {"w": np.ones((4, 3, 3, 3), np.int8), "v": np.ones((5, 4 * 16), np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("Conv", ["x", "wd"], ["y"], pads=[1] * 4, kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Reshape", ["y", "flat"], ["r"]),
        helper.make_node("DequantizeLinear", ["v", "s", "z"], ["vd"]),
        helper.make_node("Gemm", ["r", "vd"], ["out"], transB=1),
    ]
    constants = {**weights, "s": np.float32(1), "z": np.int8(0), "flat": np.array([1, 64])}
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert multiply_adds(model) == 4 * 3 * 9 * 16 + 5 * 64
