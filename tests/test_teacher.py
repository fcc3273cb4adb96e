"""The teacher's model: what learns, what it sees, and that it is the released classes' own arithmetic."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from teacher import adapter
from teacher.layout import Layout
from teacher.qwen_omni import OmniTeacher, add_lora, load_base
from teacher.tune import main as tune
from teacher.windows import SpeakerMedia, cut
from tests import tiny_teacher
from tests.tiny_teacher import READ_OUT, WINDOW

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher.write(tmp_path_factory.mktemp("teacher") / "teacher")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> OmniTeacher:
    return adapter.load(folder)[0]


def _media(seed: int, windows: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    side = WINDOW.size_px
    pictures = rng.integers(0, 256, (windows, WINDOW.pictures, side, side, 3), np.uint8)
    return pictures, rng.normal(0, 0.1, (windows, WINDOW.samples)).astype(np.float32)


def _layout(teacher: OmniTeacher) -> Layout:
    return teacher.layout(WINDOW.frames, torch.device("cpu"))


# ---- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("towers", [False, True])
def test_only_adapters_and_read_out_have_gradients(folder: Path, towers: bool) -> None:
    thinker, processor, _ = load_base("tiny", folder)
    thinker = add_lora(thinker, rank=2, alpha=4, dropout=0.0, towers=towers)
    fresh = OmniTeacher(thinker, processor, WINDOW, "predict", READ_OUT)
    with torch.no_grad():  # an adapter starts as zero times A: give B a value, so that A has a gradient as well
        for name, parameter in fresh.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    fresh(fresh.pack(*_media(0))).square().mean().backward()
    learning = {n for n, p in fresh.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learning == {n for n, p in fresh.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n.startswith("read_out.") for n in learning)
    assert any("model.layers" in n for n in learning)
    assert any("visual" in n or "audio_tower" in n for n in learning) == towers


def _by_the_library(folder: Path, pictures: np.ndarray, sounds: np.ndarray, ids: torch.Tensor) -> torch.Tensor:
    """Hidden states [B, L, C] of the library's own forward on its processor's own output, nothing of ours in it."""
    from peft import PeftModel

    thinker, processor, _ = load_base("tiny", folder)
    stock = PeftModel.from_pretrained(thinker, str(folder / "adapter")).eval().get_base_model()
    video = processor.video_processor(
        videos=list(pictures), do_resize=False, do_sample_frames=False, return_tensors="pt"
    )
    sound = processor.feature_extractor(
        list(sounds), sampling_rate=16000, padding="longest", return_attention_mask=True, return_tensors="pt"
    )
    ids = ids.expand(len(pictures), -1)
    with torch.no_grad():
        return stock(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=sound["input_features"],
            feature_attention_mask=sound["attention_mask"],
            pixel_values_videos=video["pixel_values_videos"],
            video_grid_thw=video["video_grid_thw"],
            video_second_per_grid=torch.full((len(ids),), 2 / WINDOW.video_fps),
            use_audio_in_video=True,
            output_hidden_states=True,
            return_dict=True,
        ).hidden_states[-1]


@pytest.mark.parametrize("side", [56, 140])
def test_hidden_states_equal_those_of_the_library_itself(folder: Path, side: int) -> None:
    """140 pixels make attention windows of unequal size in the picture tower."""
    window = replace(WINDOW, size_px=side)
    contract = adapter.read_contract(folder)
    thinker, processor, _ = load_base("tiny", folder)
    from peft import PeftModel

    lively = PeftModel.from_pretrained(thinker, str(folder / "adapter"))
    teacher = OmniTeacher(lively, processor, window, contract["prompt"], READ_OUT).eval()
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (2, window.pictures, side, side, 3), np.uint8)
    sounds = rng.normal(0, 0.1, (2, window.samples)).astype(np.float32)
    layout = teacher.layout(window.frames, torch.device("cpu"))
    full = _by_the_library(folder, pictures, sounds, layout.ids)
    with torch.no_grad():
        batch = teacher.pack(pictures, sounds)
        torch.testing.assert_close(teacher.hidden(batch), full, atol=2e-5, rtol=1e-4)
        after = teacher.hidden(batch, teacher.prefix(window.frames, torch.device("cpu")))
        torch.testing.assert_close(after, full[:, layout.prefix :], atol=2e-5, rtol=1e-4)


def test_windows_that_overlap_show_the_tower_each_picture_once_and_see_the_same(teacher: OmniTeacher) -> None:
    rng = np.random.default_rng(11)
    sound = rng.normal(0, 0.1, 90 * 16000 // 30).astype(np.float32)
    speaker = SpeakerMedia(rng.integers(0, 256, (15, 56, 56, 3), np.uint8), sound, 90)
    at = [0, 12, 36]
    alone = [cut(speaker, start, WINDOW) for start in at]
    with torch.no_grad():
        shared = teacher.pack_stretch(speaker, at)
        mine = teacher.token_features(shared)
        plain = teacher.token_features(teacher.pack(np.stack([p for p, _ in alone]), np.stack([s for _, s in alone])))
    assert len(shared.pictures) == 16 < 30
    torch.testing.assert_close(mine, plain, atol=1e-5, rtol=1e-4)


def test_the_processor_makes_as_many_media_tokens_as_the_timeline_says(teacher: OmniTeacher) -> None:
    layout = _layout(teacher)
    assert len(layout.audio_rows) == 25 * WINDOW.frames // 30
    assert len(layout.video_rows) == WINDOW.pictures // 2 * (WINDOW.size_px // 28) ** 2
    assert layout.video_rows[0] < layout.audio_rows[0] < layout.audio_rows[-1]


def test_a_batch_of_windows_gives_what_each_window_gives_alone(teacher: OmniTeacher) -> None:
    pictures, sounds = _media(2)
    with torch.no_grad():
        both = teacher(teacher.pack(pictures, sounds))
        alone = [teacher(teacher.pack(pictures[i : i + 1], sounds[i : i + 1]))[0] for i in range(2)]
    torch.testing.assert_close(both, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_the_offline_teacher_sees_sound_and_pictures_of_the_near_future(teacher: OmniTeacher) -> None:
    pictures, sounds = _media(3, 1)
    later, louder = pictures.copy(), sounds.copy()
    later[0, 6:] = 255 - later[0, 6:]
    louder[0, 20000:] *= -3
    with torch.no_grad():
        before = teacher(teacher.pack(pictures, sounds))
        for changed in (teacher.pack(later, sounds), teacher.pack(pictures, louder)):
            moved = (teacher(changed) - before).abs().amax(dim=(0, 2, 3, 4))
            assert moved[30:36].max() > 1e-6


def test_the_teacher_runs_in_half_precision_with_checkpointed_gradients(folder: Path) -> None:
    thinker, processor, _ = load_base("tiny", folder)
    thinker = add_lora(thinker.to(torch.bfloat16), rank=2, alpha=4, dropout=0.0, towers=False)
    thinker.gradient_checkpointing_enable()
    half = OmniTeacher(thinker, processor, WINDOW, "predict", READ_OUT).train()
    logits = half(half.pack(*_media(5)))
    logits.square().mean().backward()
    assert logits.dtype == torch.float32
    adapted = [p.grad for n, p in half.named_parameters() if "lora_B" in n]
    assert all(g is not None and torch.isfinite(g).all() for g in adapted)
    assert any(g.abs().sum() > 0 for g in adapted if g is not None)


# ---- mistakes ----------------------------------------------------------------------------------------------


def test_a_model_that_is_not_here_is_answered_with_the_way_to_get_it(tmp_path: Path) -> None:
    for name in ("Qwen/Qwen2.5-Omni-3B", str(tmp_path / "no_model")):
        with pytest.raises(ValueError, match=r"pass --model DIR") as caught:
            load_base(name, tmp_path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_dataset_that_is_missing_is_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dyad\.synthetic"):
        tune(["--dataset", str(tmp_path), "--out", str(tmp_path / "teacher")])


@pytest.mark.parametrize("command", ["teacher.tune", "teacher.label", "teacher.merge"])
def test_help_is_given_without_importing_torch(command: str) -> None:
    code = (
        f"import sys; from {command} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
