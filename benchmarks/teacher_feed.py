"""Can the processors of a GPU machine keep its GPU busy with windows? Their time here beside its arithmetic."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.teacher_job import read_media
from benchmarks.teacher_ways import random_teacher
from teacher import cost, plan
from teacher.window_spec import WindowSpec

FEED = WindowSpec(frames=300, video_fps=5, size_px=224)
"""The windows for which host and GPU are weighed against each other."""
CORES, HOP_FRAMES, BATCH, GPU = 16, 150, 4, "H200"


def feed(path: Path, read_out: dict[str, Any], *, sub_networks: int, rounds: int) -> dict[str, Any]:
    """Milliseconds per window of one core of this machine, beside those that a GPU computes on it.

    Decoding is done once for a session, cutting and preprocessing once for a stretch of `BATCH` windows.
    """
    speaker, decode_s = read_media(path, FEED, 60.0)
    decode, preprocess = 1e3 * decode_s * plan.hop_of(FEED, HOP_FRAMES) / 30, _preprocess_ms(speaker, rounds)
    work = plan.work_of([36000], FEED, HOP_FRAMES, BATCH)
    found: dict[str, Any] = {
        "window": f"{FEED.video_fps} fps, {FEED.size_px} px, 10 s every {plan.hop_of(FEED, HOP_FRAMES) / 30:g} s",
        "preprocess_ms": round(preprocess, 1),
        "decode_ms_of_this_clip": round(decode, 1),
    }
    for size, shape in cost.RELEASED.items():
        ways: dict[str, Any] = {"sub_networks": sub_networks, "grids": work.grids / work.windows}
        flops = cost.flops_of(shape, FEED, cost.tokens_of(shape, FEED), read_out, **ways)
        gpu = 1e3 * flops.total / (plan.REACHED * plan.PEAK_TFLOPS[GPU] * 1e12)
        found[size] = {
            "gpu_ms": round(gpu, 1),
            "cores_needed": round((preprocess + decode) / gpu, 2),
            f"share_of_{CORES}_cores": round((preprocess + decode) / gpu / CORES, 3),
            "gpu_share_if_one_thread_does_both": round(gpu / (gpu + preprocess), 3),
        }
    return found


def _preprocess_ms(speaker: Any, rounds: int) -> float:
    """Milliseconds in which a window is cut and made ready for the device; the model does not matter."""
    import torch

    from teacher.windows import starts

    at, times = starts(speaker.n_frames, FEED, HOP_FRAMES), []
    model = random_teacher("tiny", FEED, torch.device("cpu"))
    for turn in range(max(rounds, 3)):
        first = turn % (len(at) - BATCH)
        start = time.perf_counter()
        model.pack_stretch(speaker, at[first : first + BATCH])
        times.append(1e3 * (time.perf_counter() - start) / BATCH)
    return statistics.median(times)
