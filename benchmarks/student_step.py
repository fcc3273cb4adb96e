"""What one step of the student costs: INT8 against float, against the signed file, against torch; one thread each.

    python -m benchmarks.student_step --preset small --rounds 400

All run in one process and take turns, so that a busy machine slows them alike. Weights are random: time does not
depend on them. The last line is one JSON object.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # else this file would hide the package `student`

from dyad.config import as_dict, parse, run_main  # noqa: E402 - after the path


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is timed, and how often."""

    preset: str = "small"
    """File in configs/student."""
    rounds: int = 400
    """Steps of each engine; the first tenth is not counted."""


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _step_of(path: Path, feed: dict[str, Any]) -> Callable[[], object]:
    session = _session(path)
    return lambda: session.run(None, feed)


def build_steps(config: Config, folder: Path) -> tuple[dict[str, Callable[[], object]], dict[str, Any]]:
    """Name → one step, and facts about the files."""
    import numpy as np
    import torch

    from deploy import export, onnx_flavours, parity
    from dyad.config import load
    from student.calibration import prepare
    from student.model import Student
    from student.spec import StudentSpec

    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = load(StudentSpec, Path(__file__).parent.parent / "configs" / "student" / f"{config.preset}.yaml")
    model = Student(spec).eval()
    stream = parity.recorded_stream(spec, 16)
    names = ("frame_u8", "audio", "present")
    whole = [torch.from_numpy(np.stack([s[n] for s in stream]))[None] for n in names]
    model.vision.calibrate(whole[0][0])
    files = {n: folder / f"{n}.onnx" for n in ("float32", "int8", "int8_signed")}
    export.export(model, files["float32"])
    feed = {n: stream[0][n][None] for n in names}
    feed |= {n: np.zeros((1, *s), np.float32) for n, s in model.state_shapes().items()}
    eager_state = model.init_state(1)
    eager = Student(spec).eval()
    prepare(model, [(whole[0], whole[1], whole[2])])
    export.export(model, files["int8_signed"])
    onnx_flavours.to_cpu(files["int8_signed"], files["int8"])
    for name in ("int8", "int8_signed"):
        onnx_flavours.fuse_weights(files[name])
    steps = {name: _step_of(path, feed) for name, path in files.items()}
    steps["torch_eager"] = lambda: eager(whole[0][:, :1], whole[1][:, :1], whole[2][:, :1], eager_state)
    facts = {f"{n}_mb": round(p.stat().st_size / 1e6, 2) for n, p in files.items()}
    return steps, facts | {f"int8_{k}": v for k, v in onnx_flavours.count_kernels(files["int8"]).items()}


def measure(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every step, the engines taking turns in short runs that leave caches warm."""
    import torch

    times: dict[str, list[float]] = {name: [] for name in steps}
    with torch.no_grad():
        for _ in range(max(rounds // 20, 2)):
            for name, step in steps.items():
                step()
                for _ in range(20):
                    start = time.perf_counter()
                    step()
                    times[name].append(1e3 * (time.perf_counter() - start))
    return times


def main(argv: list[str] | None = None) -> int:
    """Build, time, print the table and the JSON line."""
    config = parse(Config, argv, prog="python -m benchmarks.student_step", description=(__doc__ or "").splitlines()[0])
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np

    from dyad.provenance import run_card

    with tempfile.TemporaryDirectory() as folder:
        steps, facts = build_steps(config, Path(folder))
        times = {n: np.array(t[len(t) // 10 :]) for n, t in measure(steps, config.rounds).items()}
    print(f"{'step':14s} {'best':>8s} {'p50':>8s} {'p95':>8s} {'p99':>8s}  ms, one thread")
    table = {}
    for name, t in times.items():
        row = [float(t.min()), *(float(np.percentile(t, q)) for q in (50, 95, 99))]
        table[name] = dict(zip(("best_ms", "p50_ms", "p95_ms", "p99_ms"), (round(v, 3) for v in row), strict=True))
        print(f"{name:14s} " + " ".join(f"{v:8.3f}" for v in row))
    ratios = {
        "int8_vs_fp32": table["float32"]["p50_ms"] / table["int8"]["p50_ms"],
        "speedup_vs_eager_step": table["torch_eager"]["p50_ms"] / table["int8"]["p50_ms"],
        "cpu_flavour_vs_signed": table["int8_signed"]["p50_ms"] / table["int8"]["p50_ms"],
    }
    for name, value in ratios.items():
        print(f"{name:24s} {value:.2f} x")
    card = run_card(command="benchmarks/student_step.py", config=as_dict(config))
    print(json.dumps({**{k: round(v, 3) for k, v in ratios.items()}, **facts, "steps": table, "run": card}))
    return 0


if __name__ == "__main__":
    run_main(main)
