"""The teacher's benchmark at toy size, through the code that a GPU would run: the device is its argument."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import teacher as bench
from benchmarks import teacher_stages, teacher_ways
from benchmarks.teacher_job import Job, check
from teacher import attention, cost, tiny
from teacher.backends.transformers import TransformersBackend
from teacher.window_spec import WindowSpec

CPU = torch.device("cpu")
WINDOW = WindowSpec(frames=60, video_fps=5, size_px=56)
CONFIG = bench.Config(frames=60, sizes_px=(56,), hop_frames=36, seconds=5.0, batches=(1, 3), sub_networks=2, rounds=1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job() -> Job:
    return Job(CONFIG, teacher_ways.random_teacher("tiny", WINDOW, CPU))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes."""
    out = tmp_path_factory.mktemp("bench") / "teacher.json"
    flags = ["--frames", "60", "--sizes-px", "56", "84", "--hop-frames", "36", "--seconds", "5", "--rounds", "1"]
    assert bench.main([*flags, "--batches", "1", "3", "--sub-networks", "2", "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_every_way_gives_the_plain_ways_labels(job: Job) -> None:
    gaps = check(job, teacher_ways.ways_of(job.model, CONFIG.batches, CONFIG.lora_rank))
    assert set(gaps) == {"plain", "ours, batch 1", "ours, batch 3", "adapter not merged, batch 3"}
    prob, logit, spread = job.label(teacher_ways.Plain(job.model))
    assert prob.shape == (150, 17)
    assert np.ptp(logit) > 0.1
    assert spread.min() > 0


def test_a_way_with_other_labels_is_refused_by_name(job: Job) -> None:
    ways = teacher_ways.ways_of(job.model, (1,), 0)
    right = ways["ours, batch 1"].features
    ways["ours, batch 1"].features = lambda speaker, at: right(speaker, at)[::-1].copy()
    with pytest.raises(ValueError, match=r"ours, batch 1: its labels lie .* from the plain way's"):
        check(job, ways)


def test_the_plain_way_is_the_librarys_own_on_the_same_weights(job: Job) -> None:
    plain = teacher_ways.Plain(job.model).core
    fresh = teacher_ways.random_thinker("tiny", tiny.build_processor(), CPU)
    for part in ("visual", "audio_tower", "model"):
        ways = [getattr(core, part).config._attn_implementation for core in (plain, fresh, job.model.core)]
        assert ways[0] == ways[1] != ways[2]
    assert type(plain.visual.patch_embed).forward is plain.visual.patch_embed.forward.__func__
    assert {p.data_ptr() for p in plain.parameters()} == {p.data_ptr() for p in job.model.core.parameters()}
    assert job.model.core.visual.config._attn_implementation == attention.PIECES


def test_figures_follow_from_one_another(result: dict[str, Any]) -> None:
    assert set(result["sizes"]) == {"56 px", "84 px"}
    for found in result["sizes"].values():
        tokens = found["tokens"]["video"] + found["tokens"]["audio"]
        peak = max(found["peak_gflop_per_s"].values())
        for row in found["rows"].values():
            assert row["times_real_time"] == pytest.approx(5 / row["seconds"], rel=0.02)
            assert row["media_tokens_per_s"] == pytest.approx(row["windows_per_s"] * tokens, rel=0.02)
            assert row["gflop_per_s"] == pytest.approx(row["windows_per_s"] * row["gflop_per_window"], rel=0.02)
            assert row["mfu"] == pytest.approx(row["gflop_per_s"] / peak, rel=0.02, abs=1e-4)
    assert result["device"] == "cpu"
    assert result["run"]["command"] == "benchmarks/teacher.py"


def test_arithmetic_counts_what_each_way_computes(job: Job) -> None:
    plain, alone, three, adapter = teacher_ways.ways_of(job.model, (1, 3), 4).values()
    assert job.flops(plain) > job.flops(alone) > job.flops(three) == job.flops(adapter)
    seen: list[int] = []
    hook = job.model.core.visual.register_forward_hook(lambda _module, given, _out: seen.append(len(given[0])))
    job.label(alone)
    once = sum(seen)
    job.label(three)
    hook.remove()
    picture = cost.flops_of(job.numbers, job.spec, job.tokens, grids=1).vision / (56 // 14) ** 2
    saved = (once - (sum(seen) - once)) * picture / len(job.at)
    assert job.flops(alone) - job.flops(three) == pytest.approx(saved)


def test_stages_are_parts_of_the_whole_and_only_the_plain_way_runs_the_language_head(result: dict[str, Any]) -> None:
    for found in result["sizes"].values():
        times = found["stages_ms_per_window"]
        for parts in times.values():
            assert all(parts[s] > 0 for s in teacher_stages.STAGES if s != "language head")
            assert sum(parts[s] for s in teacher_stages.STAGES) <= parts["all"] * 1.01
        assert times["plain"]["language head"] > 0
        assert times[found["best"]]["language head"] == 0


def test_feeding_a_gpu_weighs_the_host_against_the_arithmetic(result: dict[str, Any]) -> None:
    feed = result["feed"]
    shape = cost.RELEASED["3b"]
    flops = cost.flops_of(shape, WindowSpec(size_px=224), cost.tokens_of(shape, WindowSpec(size_px=224)))
    shared = flops.total - 0.39 * flops.vision  # of each four windows' 100 grids 61 are computed
    assert feed["3b"]["gpu_ms"] == pytest.approx(shared / (0.4 * 989e12) * 1e3, rel=0.02)
    host = feed["preprocess_ms"] + feed["decode_ms_of_this_clip"]
    assert feed["7b"]["cores_needed"] == pytest.approx(host / feed["7b"]["gpu_ms"], rel=0.02, abs=0.006)
    assert feed["7b"]["cores_needed"] < feed["3b"]["cores_needed"]


def test_a_watch_that_is_closed_sees_nothing_and_leaves_nothing_behind(job: Job) -> None:
    way = TransformersBackend(job.model, 1)
    before = set(vars(way)), set(vars(job.model))
    seen = teacher_stages.watch(way, CPU)
    job.label(way)
    seen.close()
    told = dict(seen.seconds)
    assert told["pictures"] > 0
    job.label(way)
    assert seen.seconds == told
    assert (set(vars(way)), set(vars(job.model))) == before


@pytest.mark.parametrize("shape", ["3b", "7b"])
def test_a_released_shape_is_built_on_the_device_itself_with_its_own_count_of_prompt_tokens(shape: str) -> None:
    processor = tiny.build_processor()
    thinker = teacher_ways.random_thinker(shape, processor, torch.device("meta"))
    count = sum(p.numel() for p in thinker.parameters())
    assert count == sum(cost.parameters(cost.RELEASED[shape]).values())
    assert all(p.is_meta for p in thinker.parameters())
    assert thinker.config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    ids = processor.tokenizer(f"<|im_start|>user\n{teacher_ways.prompt_of(shape)}<|vision_bos|><|audio_bos|>")[
        "input_ids"
    ]
    assert len(ids) == cost.tokens_of(cost.RELEASED[shape], WINDOW).prompt
    read = json.loads(thinker.config.to_json_string(use_diff=False))
    assert cost.parameters(read) == cost.parameters(cost.RELEASED[shape])


def test_a_released_shape_without_a_gpu_is_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="--shape 3b wants a GPU and there is none here"):
        bench.pick_device(replace(CONFIG, shape="3b", device="cpu"))


def test_vllm_without_a_teacher_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="give it as --teacher"):
        replace(CONFIG, backend="vllm")


def test_the_peak_is_the_best_of_its_products() -> None:
    small, both = (
        teacher_stages.matmul_peak(s, CPU, torch.float32, 0.01) for s in ([(8, 8, 8)], [(8, 8, 8), (256, 256, 256)])
    )
    assert both > small > 0
