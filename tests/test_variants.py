"""Every student that ships, and every fusion, keeps the promises of the streaming contract: in torch and as an engine.

A preset added to configs/student is covered without a change here. Shapes: B batch, T frames, H horizons, A units.
"""

import copy
import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy import export, onnx_flavours, parity
from deploy.engines import Tensors
from dyad import config
from student import calibration
from student.model import Student
from student.quantization import QuantConv2d, QuantLinear
from student.spec import FUSIONS, StudentSpec

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
PRESETS = sorted((Path(__file__).parent.parent / "configs" / "student").glob("*.yaml"))
SMALL = StudentSpec(
    crop_px=32, backbone="mobilenetv4_conv_small_035", d_model=32, layers=2, heads=2, window_frames=64, ffn=48,
    mel_bins=32, visual_channels=8, horizons=(0, 1, 5),
)  # fmt: skip
FRAMES = 90
"""Longer than the window of every preset."""
STEPS, CALIBRATED, EXACT_STEPS = 300, 100, 24
LOUDNESS = 0.4
"""Standard deviation of the log-odds."""
Inputs = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Variant:
    """A student, its INT8 twin, and what both are asked."""

    model: Student
    quantised: Student
    random: Inputs
    """Noise and senses that come and go: B = 1, T = FRAMES."""
    stream: list[Tensors]
    """What the front end hands over, STEPS frames."""


def variants() -> list[Any]:
    """Every shipped preset as it is, and every fusion that none of them uses on a small student."""
    shipped = {path.stem: config.load(StudentSpec, path) for path in PRESETS}
    rest = set(FUSIONS) - {spec.fusion for spec in shipped.values()}
    every = shipped | {name: SMALL.replace(fusion=name) for name in sorted(rest)}
    return [pytest.param(spec, id=name) for name, spec in every.items()]


@functools.cache
def recorded(crop_px: int) -> list[Tensors]:
    return parity.recorded_stream(StudentSpec(crop_px=crop_px), STEPS)


def noise(spec: StudentSpec, batch: int, frames: int) -> Inputs:
    maker = torch.Generator().manual_seed(1)
    size = (batch, frames, spec.crop_px, spec.crop_px, 3)
    pictures = torch.randint(0, 256, size, dtype=torch.uint8, generator=maker)
    sound = 0.1 * torch.randn(batch, frames, 800, generator=maker)
    return pictures, sound, (torch.rand(batch, frames, 2, generator=maker) > 0.2).float()


def student(spec: StudentSpec, frames: Tensor) -> Student:
    """A student whose every weight, the "missing" vectors included, differs from zero.

    It is untrained, so its eyes are fitted to very different pictures: fitted to one face alone they blow up what
    little changes from frame to frame, and the rounding of INT8 with it. The heads are as loud as keeps that rounding
    (float against INT8) at a trained student's.
    """
    torch.manual_seed(0)
    model = Student(spec).eval()
    model.vision.calibrate(torch.cat([frames, 255 - frames, torch.randint_like(frames, 256)]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 and not name.startswith("vision.backbone"):
                weight.add_(0.1 * torch.randn_like(weight))
        model.heads.out.weight.normal_(std=LOUDNESS / math.sqrt(spec.d_model))
    return model


@pytest.fixture(scope="module", params=variants())
def variant(request: pytest.FixtureRequest) -> Variant:
    spec: StudentSpec = request.param
    stream = recorded(spec.crop_px)
    seen = [torch.from_numpy(np.stack([s[k] for s in stream[:CALIBRATED]])) for k in ("frame_u8", "audio", "present")]
    model = student(spec, seen[0][::8])
    quantised = calibration.prepare(copy.deepcopy(model), [(seen[0][None], seen[1][None], seen[2][None])])
    return Variant(model, quantised, noise(spec, 1, FRAMES), stream)


@torch.no_grad()
def run(model: Student, inputs: Sequence[Tensor], cuts: Sequence[int] = ()) -> tuple[Tensor, Any]:
    """Log-odds of a stream handed in piece by piece, and the last state."""
    state, pieces = model.init_state(len(inputs[0])), []
    for a, b in itertools.pairwise([0, *cuts, inputs[0].shape[1]]):
        logits, state = model(*(x[:, a:b] for x in inputs), state)
        pieces.append(logits)
    return torch.cat(pieces, dim=1), state


# ---- in torch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float", "fake-quantised"])
def test_no_prediction_at_any_horizon_has_a_gradient_on_a_later_picture_or_sound(
    variant: Variant, precision: str
) -> None:
    model = variant.model if precision == "float" else variant.quantised
    t, frames = 5, 9
    pictures, sound, _ = variant.random
    asked = [pictures[:, :frames].float().requires_grad_(), sound[:, :frames].clone().requires_grad_()]
    logits, _ = model(*asked, torch.ones(1, frames, 2), model.init_state(1))
    for h in range(len(model.spec.horizons)):
        for grad in torch.autograd.grad(logits[:, t, h].square().sum(), asked, retain_graph=True):
            assert not grad[:, t + 1 :].any()
            assert all(grad[:, past].abs().sum() > 0 for past in (0, t - 1, t))


def test_no_later_picture_or_sound_reaches_a_prediction_while_training(variant: Variant) -> None:
    model, t, frames = copy.deepcopy(variant.model).train(), 4, 7
    pictures, sound, _ = variant.random
    asked = [pictures[:, :frames].float().requires_grad_(), sound[:, :frames].clone().requires_grad_()]
    logits, _ = model(*asked, torch.ones(1, frames, 2), model.init_state(1))
    for grad in torch.autograd.grad(logits[:, : t + 1].square().sum(), asked):
        assert not grad[:, t + 1 :].any()
        assert all(grad[:, past].abs().sum() > 0 for past in range(t + 1))


def test_a_stream_cut_anywhere_equals_the_whole_past_its_window(variant: Variant) -> None:
    assert variant.model.spec.window_frames < FRAMES
    whole, end = run(variant.model, variant.random)
    assert whole.std() > 0.2
    draw = np.random.default_rng(2)
    for pieces in (2, 4, 9):
        cuts = sorted(draw.choice(np.arange(1, FRAMES), pieces - 1, replace=False).tolist())
        parts, end_of_parts = run(variant.model, variant.random, cuts)
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0, msg=f"cut at {cuts}")
        for name, a, b in zip(end._fields, end_of_parts, end, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, msg=f"state {name}, cut at {cuts}")


def test_a_batch_equals_its_singles(variant: Variant) -> None:
    inputs = noise(variant.model.spec, 3, 8)
    together, end = run(variant.model, inputs)
    assert (together[0] - together[1]).abs().max() > 1e-2
    for i in range(3):
        alone, end_alone = run(variant.model, [x[i : i + 1] for x in inputs])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
        for name, a, b in zip(end._fields, end_alone, end, strict=True):
            torch.testing.assert_close(a[0], b[i], atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("precision", ["float", "fake-quantised"])
@pytest.mark.parametrize("sense", [0, 1], ids=["sight", "sound"])
def test_nothing_of_an_absent_sense_passes(variant: Variant, sense: int, precision: str) -> None:
    model = variant.model if precision == "float" else variant.quantised
    frames, gone = 10, slice(3, 7)
    pictures, sound, _ = (x[:, :frames] for x in variant.random)
    present = torch.ones(1, frames, 2)
    present[:, gone, sense] = 0
    other = [pictures.clone(), sound.clone()]
    other[sense][:, gone] = 255 - pictures[:, gone] if sense == 0 else torch.nan
    want, _ = run(model, (pictures, sound, present))
    got, end = run(model, (*other, present))
    assert torch.equal(got, want)
    assert all(x.isfinite().all() for x in end)
    with_it, _ = run(model, (pictures, sound, torch.ones(1, frames, 2)))
    assert (with_it - want)[:, gone].abs().max() > 1e-3


def test_a_stream_without_any_sense_is_finite_and_says_the_same_whatever_comes_in(variant: Variant) -> None:
    pictures, sound, _ = (x[:, :12] for x in variant.random)
    none = torch.zeros(1, 12, 2)
    want, _ = run(variant.model, (pictures, sound, none))
    got, _ = run(variant.model, (255 - pictures, torch.full_like(sound, torch.inf), none))
    assert want.isfinite().all()
    assert torch.equal(got, want)


@torch.no_grad()
def torch_says(model: Student, stream: list[Tensors]) -> NDArray[np.float32]:
    """Probabilities [T, H, A, 2]; in pieces, which the tests above prove equal to steps."""
    inputs = [torch.from_numpy(np.stack([s[k] for s in stream]))[None] for k in ("frame_u8", "audio", "present")]
    return torch.sigmoid(run(model, inputs, range(50, len(stream), 50))[0][0]).numpy()


# ---- as an engine ---------------------------------------------------------------------------------------------------


class Session:
    """An ONNX step as an engine; `plain` switches every graph optimisation off."""

    def __init__(self, path: Path, shapes: dict[str, tuple[int, ...]], *, plain: bool = False) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if plain:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.shapes, self.outputs = shapes, ["logits", *(f"{n}_next" for n in shapes)]

    def says(self, stream: list[Tensors]) -> NDArray[np.float32]:
        """Probabilities [T, H, A, 2]."""
        state: Tensors = {n: np.zeros((1, *s), np.float32) for n, s in self.shapes.items()}
        out = []
        for inputs in stream:
            logits, *new = self.session.run(self.outputs, {k: v[None] for k, v in inputs.items()} | state)
            state = dict(zip(self.shapes, new, strict=True))
            out.append(1 / (1 + np.exp(-logits)))
        return np.stack(out)


@dataclass(frozen=True)
class Graphs:
    """Float, canonical INT8, its exact CPU form, what ships for a CPU, and that with its biases left alone."""

    float32: Path
    canonical: Path
    signed: Path
    cpu: Path
    float_bias: Path


@pytest.fixture(scope="module")
def graphs(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    folder = tmp_path_factory.mktemp("graphs")
    made = Graphs(*(folder / f"{name}.onnx" for name in ("float32", "canonical", "signed", "cpu", "float_bias")))
    export.export(variant.model, made.float32)
    export.export(variant.quantised, made.canonical)
    onnx_flavours.to_cpu(made.canonical, made.signed, unsigned_relu=False, integer_bias=False)
    onnx_flavours.to_cpu(made.canonical, made.cpu)
    onnx_flavours.to_cpu(made.canonical, made.float_bias, integer_bias=False)
    return made


def test_the_float_engine_equals_torch_over_300_steps(variant: Variant, graphs: Graphs) -> None:
    says = Session(graphs.float32, variant.model.state_shapes()).says(variant.stream)
    assert says.std(axis=0).mean() > 0.01
    found = parity.compare(says, torch_says(variant.model, variant.stream))
    assert found.steps == STEPS
    assert found.largest <= 1e-4


@pytest.mark.parametrize("flavour", ["canonical", "float_bias"])
def test_an_int8_graph_rounds_as_torch_does(variant: Variant, graphs: Graphs, flavour: str) -> None:
    """Frame by frame from a fresh state: a sum at the edge of a step may fall the other way, but not in every frame."""
    engine = Session(getattr(graphs, flavour), variant.model.state_shapes(), plain=True)
    frames = [s for s in variant.stream[:CALIBRATED] if s["present"].all()][::3]
    apart = [np.abs(engine.says([s]) - torch_says(variant.quantised, [s])).max() for s in frames]
    in_float = [np.abs(engine.says([s]) - torch_says(variant.model, [s])).max() for s in frames]
    assert min(apart) <= 1e-5
    assert min(in_float) > 1e-3


def test_the_int8_engine_equals_its_fake_quantisation_within_the_bars_over_300_steps(
    variant: Variant, graphs: Graphs
) -> None:
    says = Session(graphs.cpu, variant.model.state_shapes()).says(variant.stream)
    assert says.std(axis=0).mean() > 0.01
    found = parity.compare(says, torch_says(variant.quantised, variant.stream))
    assert found.steps == STEPS
    assert found.mean <= parity.MEAN_INT8
    assert found.p999 <= parity.HIGH_INT8


def test_the_cpu_form_with_signed_ranges_and_float_biases_is_the_canonical_graph(
    variant: Variant, graphs: Graphs
) -> None:
    shapes, stream = variant.model.state_shapes(), variant.stream[:EXACT_STEPS]
    says = [Session(path, shapes, plain=True).says(stream) for path in (graphs.canonical, graphs.signed)]
    np.testing.assert_allclose(says[0], says[1], atol=1e-6)


def test_the_cpu_form_that_ships_agrees_with_the_canonical_graph_within_the_bars(
    variant: Variant, graphs: Graphs
) -> None:
    shapes, stream = variant.model.state_shapes(), variant.stream[:EXACT_STEPS]
    found = parity.compare(*(Session(path, shapes, plain=True).says(stream) for path in (graphs.cpu, graphs.canonical)))
    assert found.mean <= parity.MEAN_INT8
    assert found.p999 <= parity.HIGH_INT8


@pytest.mark.parametrize("precision", ["float32", "cpu"])
def test_nothing_of_an_absent_sense_passes_through_an_engine(variant: Variant, graphs: Graphs, precision: str) -> None:
    engine = Session(getattr(graphs, precision), variant.model.state_shapes())
    stream = [s | {"present": np.array([t % 7 > 2, t % 5 > 1], np.float32)} for t, s in enumerate(variant.stream[:30])]
    poisoned = [dict(s) for s in stream]
    for s in poisoned:
        if not s["present"][0]:
            s["frame_u8"] = 255 - s["frame_u8"]
        if not s["present"][1]:
            s["audio"] = np.full_like(s["audio"], np.nan)
    want = engine.says(stream)
    assert np.isfinite(want).all()
    np.testing.assert_array_equal(engine.says(poisoned), want)
    heard = [s | {"present": np.ones(2, np.float32)} for s in stream]
    assert np.abs(engine.says(heard) - want).max() > 1e-3


def float_products(path: Path, spec: StudentSpec) -> Counter[str]:
    """What the Conv, Gemm and MatMul nodes of a graph are whose operands are not both dequantised from INT8."""
    graph: Any = onnx.load(str(path)).graph
    maker = {output: node for node in graph.node for output in node.output}
    shapes = {i.name: tuple(i.dims) for i in graph.initializer}
    heads = len(spec.horizons) * len(spec.au_names) * 2

    def origin(name: str) -> str:
        """The first tensor that is not just moved."""
        while name in maker and maker[name].op_type in onnx_flavours.MOVERS:
            name = maker[name].input[0]
        return name

    def kind(node: Any) -> str:
        data, weight = (origin(name) for name in node.input[:2])
        if all(name in maker and maker[name].op_type == "DequantizeLinear" for name in (data, weight)):
            return "int8"
        shape = shapes.get(weight, ())
        known = {(spec.d_model, 1, spec.conv_kernel): "time", (400, 514): "log-mel", (257, spec.mel_bins): "log-mel"}
        if node.op_type == "MatMul" and not shape:
            return "attention"
        return (
            "heads" if set(shape) == {spec.d_model, heads} else known.get(shape, f"{node.op_type} {node.name} {shape}")
        )

    return Counter(kind(node) for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul"))


@pytest.mark.parametrize("flavour", ["canonical", "cpu"])
def test_no_product_is_left_in_float_but_those_said_to_stay(variant: Variant, graphs: Graphs, flavour: str) -> None:
    layers = [m for m in variant.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    found = float_products(getattr(graphs, flavour), variant.model.spec)
    assert set(found) - {"int8", "log-mel", "attention"} == set()
    assert found["int8"] == len(layers)
    assert sum(isinstance(m, QuantConv2d | QuantLinear) for m in variant.quantised.modules()) == len(layers)


def test_onnx_runtime_takes_every_quantised_layer_to_an_int8_kernel(variant: Variant, graphs: Graphs) -> None:
    kernels = onnx_flavours.count_kernels(graphs.cpu)
    assert kernels["int8"] == calibration.count_quantised(variant.quantised)
    assert kernels["float"] == 0


# ---- training -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dyad.synthetic.__main__ import main as make_dyads

    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "2", "--seconds", "3", "--val-share", "0.5", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


def train(spec: StudentSpec, dyads: Path, out: Path, seed: int = 0) -> tuple[str, bytes]:
    """Logged losses and final weights of `python -m distill.train`: two float steps, two quantisation-aware ones."""
    from distill.train import main

    preset = out.with_suffix(".yaml")
    config.save(spec, preset)
    flags = {
        "dataset": dyads, "out": out, "student": preset, "eyes-steps": 1, "steps": 2, "qat-steps": 2, "batch": 2,
        "clip-frames": 16, "validate-every": 2, "threads": 1, "workers": 1, "seed": seed,
    }  # fmt: skip
    assert main([part for name, value in flags.items() for part in (f"--{name}", str(value))]) == 0
    weights = (out / "checkpoint" / "model.safetensors").read_bytes()
    return (out / "metrics.jsonl").read_text(encoding="utf8"), weights


@pytest.mark.parametrize("fusion", FUSIONS)
def test_training_twice_gives_the_same_losses_and_weights_to_the_bit(fusion: str, dyads: Path, tmp_path: Path) -> None:
    spec = SMALL.replace(fusion=fusion, horizons=StudentSpec().horizons, dropout=0.2)
    first, again = (train(spec, dyads, tmp_path / name) for name in ("first", "again"))
    assert first[0].count('"loss"') == 4
    assert again == first
    other, _ = train(spec, dyads, tmp_path / "other", seed=1)
    assert other != first[0]
