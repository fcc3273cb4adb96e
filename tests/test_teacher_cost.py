"""The analytic cost beside what really runs: a counter of operations, the real classes' parameters, files on disk."""

import contextlib
import copy
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dyad.action_units import SEED17
from dyad.session import Session
from dyad.soft_labels import SoftLabelStore
from teacher import cost, layout, plan, tiny
from teacher.backends.transformers import TransformersBackend
from teacher.blend import answers
from teacher.prompt import around_media, prompt_text, prompt_with_media
from teacher.qwen_omni import OmniTeacher, load_base
from teacher.window_spec import WindowSpec
from teacher.windows import SpeakerMedia, starts

READ_OUT = {"units": 17, "horizons": 3, "token_width": 8, "width": 16, "span": 31, "dropout": 0.1}
SPECS = (
    WindowSpec(frames=90, video_fps=10, size_px=140),
    WindowSpec(frames=120, video_fps=5, size_px=56),
)
"""Windows whose last attention window and last piece of sound are smaller, and one that fits."""
REPOSITORY = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """Thinker, processor and folder of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    thinker, processor, source = load_base("tiny", folder)
    return thinker.eval(), processor, Path(source)


def _counted(run: Any) -> float:
    plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the fused kernel of processors
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _media(spec: WindowSpec, seconds: int = 12) -> SpeakerMedia:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (seconds * spec.video_fps, spec.size_px, spec.size_px, 3), np.uint8)
    return SpeakerMedia(pictures, rng.normal(0, 0.1, seconds * 16000).astype(np.float32), seconds * 30)


def _stock(base: tuple[Any, Any, Path], spec: WindowSpec) -> OmniTeacher:
    """Our way of running a thinker, on the library's own attention."""
    thinker, processor, _ = base
    model = OmniTeacher(copy.deepcopy(thinker), processor, spec, prompt_text(), READ_OUT).eval()
    model.thinker = thinker
    return model


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.size_px}px")
def test_operations_equal_those_that_a_counter_sees_part_by_part(base: tuple[Any, Any, Path], spec: WindowSpec) -> None:
    config = json.loads((base[2] / "config.json").read_text())
    model, at = _stock(base, spec), [0, 24, 48]
    batch, core = model.pack_stretch(_media(spec), at), model.core
    tokens, grids = cost.tokens_of(config, spec, base[2]), plan.shared_grids(at, spec, len(at)) / len(at)
    ours = cost.flops_of(config, spec, tokens, READ_OUT, sub_networks=2, grids=grids)
    with torch.no_grad():
        prefix = model.prefix(spec.frames, torch.device("cpu"))
        features = model.token_features(batch, prefix)
    where, masks = model.layout(spec.frames, torch.device("cpu")), model.read_out.sub_networks(2)
    towers = ours.vision + ours.audio
    parts = {
        "audio": (lambda: core.get_audio_features(batch.features, batch.feature_mask), ours.audio),
        "pictures and sound": (lambda: model.embeddings(batch), towers),
        "language": (lambda: model.hidden(batch, prefix), towers + ours.language),
        "read-out": (
            lambda: (model.token_features(batch, prefix), answers(model.read_out, where, features, masks)),
            ours.total,
        ),
    }
    for name, (run, expected) in parts.items():
        assert _counted(run) == pytest.approx(len(at) * expected, rel=0.02), name


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_picture_that_windows_of_a_batch_share_is_counted_once(base: tuple[Any, Any, Path], batch: int) -> None:
    spec, thinker = SPECS[1], copy.deepcopy(base[0])
    backend = TransformersBackend(OmniTeacher(thinker, base[1], spec, prompt_text(), READ_OUT).eval(), batch)
    at, seen = starts(360, spec, 36), []
    thinker.visual.register_forward_hook(lambda _module, given, _out: seen.append(len(given[0])))
    backend.features(_media(spec), at)
    assert len(at) == 8
    patches = sum(seen) / (spec.size_px // 14) ** 2
    assert plan.shared_grids(at, spec, batch) == patches
    assert plan.work_of([360], spec, 36, batch).grids == patches


def test_the_plain_way_costs_the_prompt_and_the_language_head_on_top(base: tuple[Any, Any, Path]) -> None:
    thinker, processor, folder = base
    spec, config = SPECS[0], json.loads((folder / "config.json").read_text())
    text, media = prompt_with_media(prompt_text()), _media(spec)
    ways = {"fps": spec.video_fps, "do_resize": False, "do_sample_frames": False, "use_audio_in_video": True}
    inputs = processor(
        text=text,
        videos=[media.pictures[: spec.pictures]],
        audio=[media.sound[: spec.samples]],
        videos_kwargs=ways,
        return_tensors="pt",
    )
    tokens = cost.tokens_of(config, spec, folder)
    flops = cost.flops_of(config, spec, tokens, keeps_prompt=False, head=True)
    run = lambda: thinker(**inputs, use_audio_in_video=True)  # noqa: E731 - one call
    assert _counted(run) == pytest.approx(flops.total, rel=0.02)


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.size_px}px")
def test_tokens_are_those_of_the_processor(base: tuple[Any, Any, Path], spec: WindowSpec) -> None:
    thinker, processor, folder = base
    config = json.loads((folder / "config.json").read_text())
    ids = {"video_token": thinker.config.video_token_id, "audio_token": thinker.config.audio_token_id}
    where = layout.layout_of(processor, spec, prompt_text(), **ids)
    tokens = cost.tokens_of(config, spec, folder)
    assert tokens.exact
    assert tokens.prompt == where.prefix
    assert (tokens.video, tokens.audio) == (len(where.video_rows), len(where.audio_rows))
    assert tokens.total == len(where.ids)


def test_the_counted_prompt_is_the_one_that_the_model_reads() -> None:
    before, after = around_media("What now?")
    media = f"{before}{after}".replace("<|audio_bos|><|audio_eos|>", "<|VIDEO|>")
    assert media == layout.prompt_with_media("What now?")


def test_a_longer_prompt_of_its_own_has_more_tokens(base: tuple[Any, Any, Path]) -> None:
    config = json.loads((base[2] / "config.json").read_text())
    usual, longer = (cost.tokens_of(config, SPECS[1], base[2], p) for p in (None, f"{prompt_text()} Now."))
    assert longer.prompt - usual.prompt == len(" Now.")  # the toy's tokens are bytes


def _real_classes(config: dict[str, Any]) -> Any:
    """The thinker of a released shape without weights."""
    from transformers import Qwen2_5OmniThinkerForConditionalGeneration
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniThinkerConfig

    with torch.device("meta"):
        return Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**config))


@pytest.mark.parametrize("size", ["3b", "7b"])
def test_parameters_of_a_released_shape_are_those_of_the_real_classes(size: str) -> None:
    model, ours = _real_classes(cost.RELEASED[size]), cost.parameters(cost.RELEASED[size])
    count = {n: sum(p.numel() for p in part.parameters()) for n, part in model.named_children()}
    assert ours["vision"] == count["visual"]
    assert ours["audio"] == count["audio_tower"]
    assert ours["language"] + ours["embeddings"] == count["model"]
    assert ours["head"] == count["lm_head"]


def test_parameters_of_a_small_model_are_counted_exactly(base: tuple[Any, Any, Path]) -> None:
    config = json.loads((base[2] / "config.json").read_text())
    assert sum(cost.parameters(config).values()) == sum(p.numel() for p in base[0].parameters())


@pytest.mark.parametrize(
    ("size", "parameters", "kv_kib", "large", "small"),
    [("3b", 4.70e9, 36, 2.0, 0.67), ("7b", 8.93e9, 56, 3.5, 1.2)],
)
def test_released_shapes_cost_what_was_measured_before(
    size: str, parameters: float, kv_kib: int, large: float, small: float
) -> None:
    config = cost.RELEASED[size]
    assert sum(cost.parameters(config).values()) == pytest.approx(parameters, rel=0.002)
    assert cost.kv_bytes_per_token(config) == kv_kib * 1024
    for size_px, tera in ((224, large), (112, small)):
        spec = WindowSpec(size_px=size_px)
        flops = cost.flops_of(config, spec, cost.tokens_of(config, spec))
        assert flops.total / 10 / 1e12 == pytest.approx(tera, rel=0.06)


@pytest.mark.parametrize("n_frames", [1, 7, 1234, 54321])
def test_disk_of_labels_is_counted_to_the_byte(tmp_path: Path, n_frames: int) -> None:
    store = SoftLabelStore.create(tmp_path, au_names=SEED17.units, teacher_hash="x", run={})
    values = np.full((n_frames, 17), 0.5, np.float32)
    store.write("s", values, values, values)
    assert (tmp_path / "s.safetensors").stat().st_size == plan.label_bytes(n_frames)


def test_windows_and_their_padding_are_those_of_a_walk_over_the_frames() -> None:
    spec, lengths = WindowSpec(frames=60, video_fps=5, size_px=56), [1, 59, 60, 61, 200]
    work = plan.work_of(lengths, spec, 24)
    every = [(n, at) for n in lengths for at in starts(n, spec, 24)]
    outside = sum(t >= n for n, at in every for t in range(at, at + 60))
    assert (work.windows, work.frames, work.padded_frames) == (len(every), sum(lengths), outside)
    assert work.grids == len(every) * 5


@pytest.mark.parametrize(("hop_frames", "applied"), [(150, 144), (300, 300), (900, 300), (1, 12)])
def test_the_hop_told_is_the_one_between_windows(hop_frames: int, applied: int) -> None:
    spec = WindowSpec(frames=300, video_fps=5, size_px=56)
    assert plan.hop_of(spec, hop_frames) == applied
    at = starts(9000, spec, hop_frames)
    assert set(np.diff(at)[:-1]) == {applied}


def _session(n_frames: int) -> Session:
    values = np.full((n_frames, 17), 0.5, np.float32)
    paths = {"speaker_video_path": Path("v"), "speaker_audio_path": Path("a")}
    none = {"listener_video_path": None, "listener_audio_path": None}
    time = {"fps": 30.0, "duration_s": n_frames / 30, "n_frames": n_frames}
    return Session(id="s", au_names=SEED17.units, prob=values, act=values, **paths, **none, **time)


def _contract(folder: Path, model: str, frames: int = 300) -> Path:
    folder.mkdir(exist_ok=True)
    window = {"frames": frames, "video_fps": 5, "size_px": 224}
    (folder / "teacher.json").write_text(
        json.dumps({"model": model, "prompt": prompt_text(), "window": window, "read_out": READ_OUT})
    )
    return folder


def _plan(folder: Path, sessions: list[Session], hop_frames: int = 300, **ways: Any) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        plan.print_plan(folder, sessions, hop_frames, **ways)
    return said.getvalue()


def test_a_plan_tells_hours_of_conversation_and_of_gpu(tmp_path: Path) -> None:
    said = _plan(_contract(tmp_path, "Qwen/Qwen2.5-Omni-7B"), [_session(54000)] * 400)
    assert "400 sessions, 200 h of conversation" in said
    assert "72,000 of 10 s, one every 10 s" in said
    assert "0.0 % of the frames read lie past a session's end" in said
    row = next(line for line in said.splitlines() if line.startswith("time on one H200"))
    hours, unit, _, speed = row.split()[-4:]
    assert unit == "h"
    assert float(hours) == pytest.approx(200 * 3.46 / (0.4 * 989), rel=0.02)
    assert float(speed) == pytest.approx(0.4 * 989 / 3.46, rel=0.02)
    assert "~108" in said


def test_a_plan_reckons_with_pictures_that_neighbours_share(tmp_path: Path) -> None:
    folder, sessions = _contract(tmp_path, "Qwen/Qwen2.5-Omni-3B"), [_session(300 + 3 * 144)] * 4
    alone, together = (_plan(folder, sessions, 150, batch=batch) for batch in (1, 4))
    assert "100.0 % of their pictures are computed" in alone
    assert "61.0 % of their pictures are computed" in together  # 25 + 3 · 12 of 4 · 25 grids
    assert "one every 4.8 s" in together
    speeds = [float(text.split("H200 | × real time")[1].split()[3]) for text in (alone, together)]
    assert speeds[1] > 1.15 * speeds[0]


def test_a_window_shorter_than_the_hop_is_told_with_the_hop_that_applies(tmp_path: Path) -> None:
    said = _plan(_contract(tmp_path, "Qwen/Qwen2.5-Omni-3B", frames=60), [_session(900)], 150)
    assert "15 of 2 s, one every 2 s" in said


def test_a_small_job_is_told_in_units_that_can_be_read(tmp_path: Path) -> None:
    folder = _contract(tmp_path / "t", "tiny")
    tiny.build(folder / "base")
    said = _plan(folder, [_session(900)])
    assert "1 sessions, 30 s of conversation" in said
    assert "GFLOP" in said
    assert " µs | " in said
    assert "0.00" not in said


def test_a_plan_says_how_much_of_a_short_session_is_padding(tmp_path: Path) -> None:
    said = _plan(_contract(tmp_path, "Qwen/Qwen2.5-Omni-3B"), [_session(75)])
    assert "1 of 10 s" in said
    assert "75.0 % of the frames read lie past a session's end" in said
    assert "4.00 times" in said


def test_a_plan_of_an_empty_dataset_is_no_fault(tmp_path: Path) -> None:
    said = _plan(_contract(tmp_path, "Qwen/Qwen2.5-Omni-3B"), [])
    assert "0 sessions, 0 s of conversation" in said


def test_a_base_that_is_nowhere_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'someone/else' is no folder here and no released size"):
        plan.print_plan(_contract(tmp_path, "someone/else"), [], 150)


def test_a_plan_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    folder = _contract(tmp_path / "t", "tiny")
    tiny.build(folder / "base")
    code = (
        "import sys; from pathlib import Path; from teacher import plan\n"
        f"plan.print_plan(Path({str(folder)!r}), [], 150)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "this (tiny)" in done.stdout
