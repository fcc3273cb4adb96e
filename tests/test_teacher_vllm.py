"""The teacher through the real vLLM engine, on its tiny model: the same numbers as through transformers.

Where vLLM is not installed these are skipped; where there is no GPU a shim supplies the few operators that vLLM's wheel
lacks there (tests/vllm_cpu_shim.py). vLLM warns of much that is not ours, hence no warning is an error here.

    uv run --no-sync --with "vllm==0.32.*" pytest tests/test_teacher_vllm.py
"""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_teacher
import torch
import vllm_cpu_shim

from dyad.action_units import SEED17
from teacher import merge
from teacher.backends import vllm as vllm_backend
from teacher.backends.transformers import TransformersBackend
from teacher.windows import SpeakerMedia

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the shim is for machines without a GPU"),
]
WINDOW = replace(tiny_teacher.WINDOW, frames=180)
"""Six seconds: the model interleaves pictures and sound in chunks of two, so that a window has three of each."""
AT = (0, 48, 168)
"""First frames of three windows that overlap; the last one reaches past the end."""
STEPS = {"windows cut into steps": 64, "whole windows in a step": 4096}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vllm")
    prompt = f"Watch, listen and answer for each of these: {', '.join(SEED17.units)}. " * 3  # longer than a cache page
    tiny_teacher.write(root / "teacher", WINDOW, prompt=prompt)
    assert merge.main(["--teacher", str(root / "teacher"), "--out", str(root / "merged")]) == 0
    return root / "merged"


@pytest.fixture(scope="module", params=STEPS.values(), ids=STEPS)
def backend(serving: Path, request: pytest.FixtureRequest) -> Iterator[vllm_backend.VllmBackend]:
    with vllm_cpu_shim.engine():
        settings = {"max_num_batched_tokens": request.param, "max_num_seqs": 4, "enforce_eager": True}
        yield vllm_backend.VllmBackend(serving, vllm_backend.Config(**settings))


@pytest.fixture(scope="module")
def reference(serving: Path) -> TransformersBackend:
    return TransformersBackend.load(serving)


def _speaker(seed: int, *, still: bool = False) -> SpeakerMedia:
    """Ten seconds of noise; `still` shows one picture all the time."""
    rng, side = np.random.default_rng(seed), WINDOW.size_px
    pictures = rng.integers(0, 256, (50, side, side, 3), np.uint8)
    sound = rng.normal(0, 0.1, 160000).astype(np.float32)
    return SpeakerMedia(pictures[:1].repeat(50, axis=0) if still else pictures, sound, 300)


def _spy(backend: vllm_backend.VllmBackend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens of each window came from the cache, as they are asked for."""
    reused: list[int] = []
    encode = backend.engine.encode

    def watched(*args: Any, **options: Any) -> Any:
        answers = encode(*args, **options)
        reused.extend(answer.num_cached_tokens for answer in answers)
        return answers

    monkeypatch.setattr(backend.engine, "encode", watched)
    return reused


# ---- equality ----------------------------------------------------------------------------------------------


def test_the_engine_gives_the_views_that_transformers_gives(
    backend: vllm_backend.VllmBackend, reference: TransformersBackend
) -> None:
    mine, wanted = (b.features(_speaker(0), AT) for b in (backend, reference))
    print(f"largest difference {np.abs(mine - wanted).max():.1e}, largest value {np.abs(wanted).max():.2f}")
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, wanted, atol=2e-5)


def test_the_labels_are_those_of_transformers(
    backend: vllm_backend.VllmBackend, reference: TransformersBackend
) -> None:
    with torch.no_grad():
        mine, wanted = (
            b.read_out(torch.from_numpy(b.features(_speaker(1), AT)), b.layout) for b in (backend, reference)
        )
    print(f"largest difference of log-odds {float((mine - wanted).abs().max()):.1e} of {float(wanted.abs().max()):.2f}")
    torch.testing.assert_close(mine, wanted, atol=1e-3, rtol=1e-3)


def test_positions_are_those_of_transformers_to_the_last_token(
    backend: vllm_backend.VllmBackend, reference: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from teacher.backends.vllm_model import RapportTeacher

    given: list[tuple[list[int], torch.Tensor]] = []
    rule = RapportTeacher.get_mrope_input_positions

    def watched(model: Any, tokens: list[int], features: Any) -> Any:
        positions, ahead = rule(model, tokens, features)
        given.append((list(tokens), positions))
        return positions, ahead

    monkeypatch.setattr(RapportTeacher, "get_mrope_input_positions", watched)
    backend.features(_speaker(2), [12])
    ((tokens, positions),) = given
    wanted, _ = reference.teacher.core.get_rope_index(
        reference.layout.ids[None],
        video_grid_thw=torch.tensor([[WINDOW.pictures // 2, WINDOW.size_px // 14, WINDOW.size_px // 14]]),
        attention_mask=torch.ones(1, len(reference.layout.ids)),
        use_audio_in_video=True,
        audio_seqlens=torch.tensor([WINDOW.samples // 160]),
        second_per_grids=torch.tensor([2 / WINDOW.video_fps]),
    )
    assert tokens == reference.layout.ids.tolist()
    assert torch.equal(positions, wanted[:, 0])


# ---- windows do not meet -----------------------------------------------------------------------------------


def test_windows_asked_together_are_answered_as_if_alone(backend: vllm_backend.VllmBackend) -> None:
    speaker, at = _speaker(3), (*AT, 60, 108)
    together = backend.features(speaker, at)
    for start, alone in zip(at, together, strict=True):
        np.testing.assert_allclose(backend.features(speaker, [start])[0], alone, atol=2e-5)


def test_the_prompt_is_computed_once_and_the_media_every_time(
    backend: vllm_backend.VllmBackend, reference: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = _speaker(4)
    backend.features(speaker, AT)
    reused = _spy(backend, monkeypatch)
    with_reuse = backend.features(speaker, AT)  # the very same media: nothing of them may come from the cache
    assert all(0 < tokens <= reference.layout.prefix for tokens in reused)
    monkeypatch.setattr(backend, "config", replace(backend.config, prefix_caching=False))
    reused.clear()
    without = backend.features(speaker, AT)
    assert reused == [0, 0, 0]
    np.testing.assert_allclose(with_reuse, without, atol=2e-5)
    np.testing.assert_allclose(with_reuse, reference.features(speaker, AT), atol=2e-5)


def test_the_same_pictures_with_another_sound_are_another_window(
    backend: vllm_backend.VllmBackend, reference: TransformersBackend
) -> None:
    speaker = _speaker(5, still=True)
    mine = backend.features(speaker, AT)
    assert np.abs(mine[0] - mine[1]).max() > 1e-3
    np.testing.assert_allclose(mine, reference.features(speaker, AT), atol=2e-5)


# ---- what may go wrong -------------------------------------------------------------------------------------


def test_a_window_whose_beginning_was_lost_is_asked_for_again(
    backend: vllm_backend.VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker, ask, asked = _speaker(6), backend._ask, []

    def lossy(windows: Sequence[vllm_backend.Window]) -> np.ndarray:
        views = ask(windows)
        asked.append(len(views))
        if len(asked) == 1:
            views[1, :5] = np.nan
        return views

    wanted = backend.features(speaker, AT)
    monkeypatch.setattr(backend, "_ask", lossy)
    np.testing.assert_allclose(backend.features(speaker, AT), wanted, atol=2e-5)
    assert asked == [3, 1]


def test_numbers_that_overflow_are_named_with_a_remedy(
    backend: vllm_backend.VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = np.full((2, 210, 8), np.nan, np.float32)
    nothing[0] = 0
    monkeypatch.setattr(backend, "_ask", lambda windows: nothing[-len(windows) :].copy())
    with pytest.raises(ValueError, match=r"window at frame 48: no finite numbers; merge with --dtype float32"):
        backend.features(_speaker(7), AT[:2])


def test_vllm_is_not_imported_with_the_back_end() -> None:
    code = "import sys, teacher.backends.vllm; assert 'vllm' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_merged_folder_and_the_adapter_agree_through_vllm(serving: Path, backend: vllm_backend.VllmBackend) -> None:
    unmerged = TransformersBackend.load(serving.parent / "teacher")
    np.testing.assert_allclose(backend.features(_speaker(8), AT), unmerged.features(_speaker(8), AT), atol=2e-5)
