"""A checkpoint as one ONNX step: one frame in, the plan and the next state out, all shapes fixed.

    inputs   frame_u8 [1, h, w, 3] uint8 · audio [1, 800] float · present [1, 2] float · every state by name
    outputs  logits [H, A, 2] · every state as <name>_next

Fake quantisation leaves as explicit QuantizeLinear/DequantizeLinear pairs, signed with zero point 0: the canonical
form, which TensorRT takes as it is. Opset 20: later ones make ONNX Runtime mistype signed pairs.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from student.model import Student
from student.quantization import ActivationQuantizer, fix_weight_scales

OPSET = 20


class Step(nn.Module):
    """The student with its state spread out as plain tensors."""

    def __init__(self, model: Student) -> None:
        super().__init__()
        self.model = model

    def forward(self, frame_u8: Tensor, audio: Tensor, present: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One frame, one row."""
        packed = type(self.model.init_state(1))(*state)
        logits, new = self.model.advance(self.model.vision(frame_u8), audio, present, packed)
        return (logits[0], *new)


def export(model: Student, path: Path) -> None:
    """Write the canonical step graph."""
    import onnx

    model.eval()
    fix_weight_scales(model)
    spec, state = model.spec, model.init_state(1)
    example = (
        torch.zeros(1, spec.crop_px, spec.crop_px, 3, dtype=torch.uint8),
        torch.zeros(1, spec.audio_window_samples),
        torch.ones(1, 2),
    )
    names = list(state._fields)
    program: Any = torch.onnx.export(
        Step(model).eval(),
        (*example, *state),
        dynamo=True,
        opset_version=OPSET,
        input_names=["frame_u8", "audio", "present", *names],
        output_names=["logits", *(f"{n}_next" for n in names)],
        optimize=True,
        verbose=False,
    )
    proto = program.model_proto
    for node in proto.graph.node:  # source lines of the export weigh more than a small student's INT8 weights
        del node.metadata_props[:]
        node.doc_string = ""
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def is_quantised(model: Student) -> bool:
    """Whether the checkpoint carries activation scales."""
    return any(isinstance(m, ActivationQuantizer) for m in model.modules())
