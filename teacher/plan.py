"""What labelling a dataset would cost: windows, hours of GPU and gigabytes, told before anything is run.

Windows are cut as the labeller cuts them, and those that go through the model together share pictures. Neither torch
nor weights are needed (`teacher.cost` does the counting).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyad.action_units import SEED17
from dyad.clock import FPS, SAMPLE_RATE_HZ
from dyad.provenance import read_json
from dyad.session import Speaker
from teacher.cost import (
    RELEASED,
    Flops,
    Tokens,
    flops_of,
    grids_of,
    kv_bytes_per_token,
    parameters,
    tokens_of,
)
from teacher.window_spec import WindowSpec

Config = Mapping[str, Any]
Scales = Sequence[tuple[float, str]]

PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "L40S": 362.0}
"""Dense bfloat16 matrix products per second, SXM where there is a choice; from the makers' data sheets."""
REACHED = 0.4
"""Share of the peak that plans reckon with."""
TENSORS = ("act_logit", "prob", "uncertainty")
COUNT = ((1e9, " B"), (1e6, " M"), (1e3, " k"), (1, ""))
BYTES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B"))
FLOP = ((1e18, " E"), (1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"))
TIME = ((3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs"))


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a dataset comes to."""

    sessions: int
    frames: int
    windows: int
    padded_frames: int
    """Frames of windows that lie past the end of their session."""
    grids: int
    """Grids that go through the picture tower: those of windows read together are shared."""


def work_of(lengths: Sequence[int], spec: WindowSpec, hop_frames: int, batch: int = 1) -> Work:
    """Windows over sessions of these lengths in frames, `batch` of a session at a time."""
    from teacher.windows import starts

    cut = [(n, starts(n, spec, hop_frames)) for n in lengths]
    return Work(
        sessions=len(lengths),
        frames=sum(lengths),
        windows=sum(len(at) for _, at in cut),
        padded_frames=sum(max(first + spec.frames - n, 0) for n, at in cut for first in at),
        grids=sum(shared_grids(at, spec, batch) for _, at in cut),
    )


def shared_grids(at: Sequence[int], spec: WindowSpec, batch: int) -> int:
    """Grids in windows at frames `at` of a session, when each `batch` of them takes what it shares once."""
    grid, stretches = 2 * FPS // spec.video_fps, [at[i : i + batch] for i in range(0, len(at), batch)]
    return sum((stretch[-1] - stretch[0] + spec.frames) // grid for stretch in stretches)


def hop_of(spec: WindowSpec, hop_frames: int) -> int:
    """Frames between windows as they are cut: whole grids, and no frame left out between two windows."""
    from teacher.windows import starts

    first, second, *_ = starts(3 * spec.frames, spec, hop_frames)
    return second - first


def label_bytes(n_frames: int, units: int = len(SEED17.units)) -> int:
    """Bytes of a session's shard in the store, header included."""
    size, header = 4 * n_frames * units, {}
    for i, name in enumerate(TENSORS):
        header[name] = {"dtype": "F32", "shape": [n_frames, units], "data_offsets": [i * size, (i + 1) * size]}
    text = len(json.dumps(header, separators=(",", ":")))
    return 8 + -(-text // 8) * 8 + len(TENSORS) * size


def cache_bytes(n_frames: int, spec: WindowSpec) -> int:
    """Bytes of a session's decoded pictures and sound, as kept by `teacher.dataset`."""
    pictures = -(-n_frames * spec.video_fps // FPS)
    return pictures * spec.size_px**2 * 3 + 4 * (n_frames * SAMPLE_RATE_HZ // FPS)


def config_of(folder: Path, contract: Config) -> tuple[dict[str, Any], Path | None]:
    """The configuration of a teacher's thinker and the folder it was found in; None for a hub id's released shape."""
    for base in (folder, folder / "base", Path(contract["model"])):
        if (base / "config.json").is_file():
            found = read_json(base / "config.json")
            return found.get("thinker_config", found), base
    for size, shape in RELEASED.items():
        if contract["model"].lower().endswith(f"omni-{size}"):
            return shape, None
    raise ValueError(
        f"{folder}: its base {contract['model']!r} is no folder here and no released size ({', '.join(RELEASED)}); "
        "run it where the base lies"
    )


def print_plan(
    teacher: Path,
    sessions: Sequence[Speaker],
    hop_frames: int,
    *,
    batch: int = 1,
    gpus: Sequence[str] = ("H200", "A100", "L40S"),
    sub_networks: int = 8,
) -> None:
    """Print what labelling `sessions` with this teacher would cost, beside the released sizes."""
    contract = read_json(teacher / "teacher.json")
    spec, (config, base) = WindowSpec(**contract["window"]), config_of(teacher, contract)
    work = work_of([s.n_frames for s in sessions], spec, hop_frames, batch)
    models = {f"this ({Path(contract['model']).name})": (config, tokens_of(config, spec, base, contract["prompt"]))}
    models |= {f"Omni-{k.upper()}": (v, tokens_of(v, spec, None, contract["prompt"])) for k, v in RELEASED.items()}
    columns = {}
    for name, (shape, tokens) in models.items():
        grids = work.grids / work.windows if work.windows else None
        flops = flops_of(shape, spec, tokens, contract["read_out"], sub_networks=sub_networks, grids=grids)
        columns[name] = _size_rows(shape, tokens) | _work_rows(tokens, flops, work, gpus)
    print("\n".join(_dataset_lines(work, spec, hop_frames, grids_of(config, spec))))
    print("\n".join(_table(columns)))
    if not all(tokens.exact for _, tokens in models.values()):
        print("~ counted without that model's tokenizer")
    labels, media = (sum(f(s.n_frames) for s in sessions) for f in (label_bytes, lambda n: cache_bytes(n, spec)))
    print(f"\non disk: labels {_scaled(labels, BYTES)}, decoded media about {_scaled(media, BYTES)}")


def _dataset_lines(work: Work, spec: WindowSpec, hop_frames: int, grids: int) -> list[str]:
    read = work.windows * spec.frames
    seconds = f"{spec.frames / FPS:g} s, one every {hop_of(spec, hop_frames) / FPS:g} s"
    padded, looked_at = 100 * work.padded_frames / max(read, 1), 100 * work.grids / max(work.windows * grids, 1)
    return [
        "what labelling would cost; nothing has been run",
        f"dataset: {work.sessions:,} sessions, {_scaled(work.frames / FPS, TIME)} of conversation",
        f"windows: {work.windows:,} of {seconds}; {spec.video_fps} pictures a second of {spec.size_px} px",
        f"         every second is read {read / max(work.frames, 1):.2f} times",
        f"         {padded:.1f} % of the frames read lie past a session's end",
        f"         {looked_at:.1f} % of their pictures are computed; windows read together share the others",
    ]


def _table(columns: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line for each row, cells to the right."""
    width = 2 + max(len(cell) for name, column in columns.items() for cell in (name, *column.values()))
    rows = list(next(iter(columns.values())))
    lines = [f"{row:38s}" + "".join(f"{column[row]:>{width}s}" for column in columns.values()) for row in rows]
    return [f"\n{'':38s}" + "".join(f"{name:>{width}s}" for name in columns), *lines]


def _size_rows(config: Config, tokens: Tokens) -> dict[str, str]:
    """What a model is, row title → figure."""
    count, about = sum(parameters(config).values()), "" if tokens.exact else "~"
    return {
        "parameters": _scaled(count, COUNT),
        "weights in bfloat16 | float32": f"{_scaled(2 * count, BYTES)} | {_scaled(4 * count, BYTES)}",
        "tokens of the prompt, read once": f"{about}{tokens.prompt:,}",
        "tokens a window, pictures + sound": f"{tokens.video:,} + {tokens.audio:,}",
        "keys and values a window, bfloat16": _scaled(tokens.total * kv_bytes_per_token(config), BYTES),
    }


def _work_rows(tokens: Tokens, flops: Flops, work: Work, gpus: Sequence[str]) -> dict[str, str]:
    """What a dataset costs with it."""
    total, media_s = work.windows * flops.total, work.frames / FPS
    share = {k: f"{100 * v / flops.total:.0f} %" for k, v in vars(flops).items()}
    rows = {
        "media tokens in all": _scaled(work.windows * tokens.media, COUNT),
        "arithmetic a window": _scaled(flops.total, FLOP) + "FLOP",
        "  of it pictures | sound": f"{share['vision']} | {share['audio']}",
        "  of it language model | read-out": f"{share['language']} | {share['read_out']}",
        "arithmetic in all": _scaled(total, FLOP) + "FLOP",
    }
    for gpu in gpus:
        seconds = total / (REACHED * PEAK_TFLOPS[gpu] * 1e12)
        speed = _number(media_s / seconds) if seconds else "-"
        rows[f"time on one {gpu} | × real time"] = f"{_scaled(seconds, TIME)} | {speed}"
    return rows | {"  at a share of the GPU's peak of": f"{100 * REACHED:.0f} %"}


def _scaled(value: float, scales: Scales) -> str:
    """A figure in the largest unit of which there is one, or the smallest at hand."""
    fitting = (s for s in scales if value >= s[0] or (s[0] == 1 and not value))
    scale, unit = next(fitting, scales[-1])
    return (f"{value:.0f}" if scale == 1 and value == int(value) else _number(value / scale)) + unit


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.{max(2 - math.floor(math.log10(value)), 0)}f}"
