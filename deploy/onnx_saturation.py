"""Let the CPU flavour saturate where training and TensorRT do.

A rectified activation is signed in the canonical graph: 127 is its highest value. Unsigned with the same scale it goes
on to 255, so a picture or sound beyond what calibration saw is clipped by torch and not by the CPU engine. One Min
after each such pair makes them equal again (a tiny student calibrated on another speaker: mean difference of
probabilities .0054 without, .0001 with it). No INT8 kernel is lost; no change of the step's time could be measured.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

TOP = 127
"""Highest value of a signed byte."""


def saturate(path: Path) -> int:
    """Cap every unsigned activation with zero point 0, in place; returns how many there are."""
    model = onnx.load(str(path))
    graph: Any = model.graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    rectified = [n for n in graph.node if n.op_type == "QuantizeLinear" and _is_unsigned_zero(values, n)]
    if not rectified:
        return 0
    graph.initializer.append(numpy_helper.from_array(np.array(TOP, np.uint8), "saturation"))
    for node in rectified:
        whole, capped = node.output[0], f"{node.output[0]}_saturated"
        for user in graph.node:
            for place, name in enumerate(user.input):
                if name == whole:
                    user.input[place] = capped
        place = list(graph.node).index(node) + 1
        graph.node.insert(place, helper.make_node("Min", [whole, "saturation"], [capped]))
    path.write_bytes(model.SerializeToString())
    return len(rectified)


def _is_unsigned_zero(values: dict[str, np.ndarray], quantise: Any) -> bool:
    zero = values.get(quantise.input[2]) if len(quantise.input) > 2 else None
    return zero is not None and zero.dtype == np.uint8 and not zero.any()
