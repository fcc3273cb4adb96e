"""How fast windows are labelled: our back end beside the plain way, stage by stage, and beside the machine's peak.

    python benchmarks/teacher.py               # the tiny model: minutes on two cores
    python benchmarks/teacher.py --shape 3b    # the true shape with random weights, on a GPU; not yet run on one

The plain way takes window after window through the library's processor and full forward, language head included, on a
thinker as the library makes it. All ways give the same labels, which is checked first. Units take turns, and ratios are
taken within a turn; medians, since machines are shared. Arithmetic is counted as it runs (`teacher.cost`): a picture
that windows of a batch share is computed once and counts once. The peak is measured here, with matrix products of the
model's own sizes among others. Random weights: time does not depend on them. Writes benchmarks/results/teacher.json;
the last line is one JSON object.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if Path(sys.path[0]).resolve() == ROOT / "benchmarks":
    sys.path[0] = str(ROOT)  # run as a file, this folder would hide the package `teacher`

import json  # noqa: E402 - after the path
import os  # noqa: E402
import statistics  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any, Literal  # noqa: E402

from benchmarks.teacher_feed import GPU, feed  # noqa: E402
from benchmarks.teacher_job import Job, check, read_media  # noqa: E402
from benchmarks.teacher_stages import STAGES, in_turns, matmul_peak  # noqa: E402
from benchmarks.teacher_ways import READ_OUT, random_teacher, tuned_teacher, ways_of  # noqa: E402
from dyad.config import as_dict, parse, run_main  # noqa: E402
from dyad.provenance import read_json  # noqa: E402
from teacher import plan  # noqa: E402
from teacher.window_spec import WindowSpec  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is timed, and how often."""

    shape: Literal["tiny", "3b", "7b"] = "tiny"
    """Random weights of this shape; the released ones want a GPU."""
    teacher: Path | None = None
    """A tuned teacher, with its own windows, instead of random weights."""
    backend: Literal["transformers", "vllm"] = "transformers"
    """vllm times it besides; it wants a merged --teacher and a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    frames: int = 300
    """Length of a window."""
    sizes_px: tuple[int, ...] = (112, 224)
    """Sides of the pictures; each is measured by itself."""
    hop_frames: int = 150
    """Frames between windows, the labeller's default."""
    seconds: float = 60.0
    """Length of the session, the packaged clip over and over."""
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Windows at a time."""
    sub_networks: int = 8
    """Stochastic passes of the read-out."""
    lora_rank: int = 16
    """Rank of the adapter in the unit that does not merge it; 0 leaves that out."""
    rounds: int = 5
    """Turns of every unit."""
    threads: int = 1
    """Processor threads of torch."""
    clip: Path = ROOT / "deploy" / "assets" / "clip.mp4"
    """Video of a speaker."""
    out: Path = ROOT / "benchmarks" / "results" / "teacher.json"
    """Results file."""

    def __post_init__(self) -> None:
        """Refuse what cannot be timed."""
        counts = (self.rounds, self.threads, self.hop_frames, *self.batches, *self.sizes_px)
        if min(counts) < 1 or not (self.batches and self.sizes_px) or self.seconds <= 0:
            raise ValueError("rounds, threads, hop_frames, batches, sizes_px ≥ 1 and seconds > 0 are needed")
        if self.backend == "vllm" and self.teacher is None:
            raise ValueError("--backend vllm serves a merged teacher; give it as --teacher")


def pick_device(config: Config) -> Any:
    """Where the model runs; raises ValueError where the shape is too large for a processor."""
    import torch

    wanted = config.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU here; leave the flag out")
    if wanted == "cpu" and config.shape != "tiny":
        raise ValueError(f"--shape {config.shape} wants a GPU and there is none here; on a processor time --shape tiny")
    return torch.device(wanted)


def measure(config: Config, device: Any) -> dict[str, Any]:
    """Each picture size by itself, and whether a host can feed a GPU."""
    import torch

    served = {}
    if config.backend == "vllm" and config.teacher is not None:
        from teacher.backends.vllm import VllmBackend

        served["vllm"] = VllmBackend(config.teacher)  # before the model: it wants to be the first on the GPU
    if config.teacher is not None:
        sizes = (read_json(config.teacher / "teacher.json")["window"]["size_px"],)
        shape = config.teacher.name
    else:
        sizes, shape = config.sizes_px, config.shape
    found = {}
    for size_px in sizes:
        if config.teacher is None:
            model = random_teacher(config.shape, WindowSpec(frames=config.frames, size_px=size_px), device)
        else:
            model = tuned_teacher(config.teacher, device)
        found[f"{size_px} px"] = measure_size(config, model, served)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "shape": shape,
        "sizes": found,
        "feed": feed(config.clip, READ_OUT, sub_networks=config.sub_networks, rounds=config.rounds),
    }


def measure_size(config: Config, model: Any, served: dict[str, Any]) -> dict[str, Any]:
    """Check that all ways agree, then time them in turns with the machine's peak and the decoder."""
    job = Job(config, model)
    ways = ways_of(model, config.batches, 0 if config.teacher else config.lora_rank) | served
    differences = check(job, ways)
    square = 1024 if job.device.type == "cpu" else 8192
    products = {"its own sizes": job.product_sizes(), f"{square} square": [(square, square, square)]}
    peaks: dict[str, list[float]] = {name: [] for name in products}
    decodes: list[float] = []
    units: dict[str, Callable[[], object]] = {name: lambda way=way: job.label(way) for name, way in ways.items()}
    for name, sizes in products.items():
        units[name] = lambda n=name, s=sizes: peaks[n].append(matmul_peak(s, job.device, model.core.dtype))
    units["decode"] = lambda: decodes.append(read_media(config.clip, job.spec, 1.0)[1])
    times = in_turns(units, config.rounds)
    peak = max(max(p) for p in peaks.values())
    rows = {name: job.row(way, times[name], times["plain"], peak) for name, way in ways.items()}
    best = min((n for n in rows if n.startswith("ours")), key=lambda n: rows[n]["seconds"])
    return {
        "speedup_vs_plain": rows[best]["vs_plain"],
        "best": best,
        "difference_from_plain": differences,
        "peak_gflop_per_s": {name: round(max(p) / 1e9, 1) for name, p in peaks.items()},
        "windows": len(job.at),
        "media_s": job.n_frames / 30,
        "tokens": {"prompt": job.tokens.prompt, "video": job.tokens.video, "audio": job.tokens.audio},
        "decode_ms_per_media_s": round(1e3 * statistics.median(decodes), 3),
        "rows": rows,
        "stages_ms_per_window": {name: job.stages(ways[name]) for name in ("plain", best)},
    }


def print_tables(result: dict[str, Any]) -> None:
    """Throughput, stages, and whether the host can feed a GPU."""
    columns = ("times_real_time", "vs_plain", "media_tokens_per_s", "gflop_per_window", "gflop_per_s", "mfu")
    for size, found in result["sizes"].items():
        peaks = ", ".join(f"{k} {v:,.0f}" for k, v in found["peak_gflop_per_s"].items())
        what = f"{found['windows']} windows of {size} over {found['media_s']:g} s"
        print(f"{result['shape']} on {result['device']}: {what}; matrix products GFLOP/s: {peaks}")
        print(f"{'':32s}" + "".join(f"{c:>20s}" for c in columns))
        for name, row in found["rows"].items():
            print(f"{name:32s}" + "".join(f"{row[c]:20,.3f}" for c in columns))
        times = found["stages_ms_per_window"]
        print(f"\n{'ms per window':32s}" + "".join(f"{n:>20s}" for n in times))
        for stage in (*STAGES, "all"):
            print(f"{stage:32s}" + "".join(f"{s[stage]:20.2f}" for s in times.values()))
        print()
    print(f"feeding one {GPU} at {100 * plan.REACHED:.0f} % of its peak, {result['feed']['window']}:")
    for key, value in result["feed"].items():
        print(f"{key:32s} {value}")


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables and the JSON line."""
    config = parse(Config, argv, prog="python benchmarks/teacher.py", description=(__doc__ or "").splitlines()[0])
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    import torch

    from dyad.provenance import run_card, write_json

    torch.set_num_threads(config.threads)
    result = measure(config, pick_device(config))
    print_tables(result)
    settings = as_dict(config) | {"out": config.out.name, "clip": config.clip.name}
    result["run"] = run_card(command="benchmarks/teacher.py", config=settings)
    write_json(config.out, result)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_main(main)
