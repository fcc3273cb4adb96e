"""Copy figures from results files into the README: none is typed.

python -m benchmarks.figures
"""

from pathlib import Path
from typing import Any

from benchmarks import faces_figures, loop_figures
from distill.comparison import put_between
from dyad.provenance import read_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

ROWS = {
    "speedup_vs_eager_window": "torch, running the last 64 frames again each frame",
    "speedup_vs_eager_cached_eyes": "the same with visual features kept",
    "speedup_vs_eager_step": "torch, one step with its state",
    "speedup_vs_compiled_step": "the same through `torch.compile`",
    "speedup_vs_resnet_gru": "ResNet18 + two-way GRU + cross-attention, 112 px, frame features kept",
    "speedup_vs_resnet_gru_224": "the same at 224 px",
    "speedup_vs_transvae_published": "TransVAE online, as published",
    "speedup_vs_transvae_cached": "TransVAE online, encoding new frames only",
    "int8_vs_fp32": "its own float32 step in ONNX Runtime",
    "cpu_flavour_vs_signed": "the signed (TensorRT) INT8 file in ONNX Runtime",
}


def speed(result: dict[str, Any]) -> str:
    """The table of ratios, and what else one run measured."""
    machine, settings = result["run"]["machine"], result["run"]["config"]
    small, plain = settings["preset"], settings["plain"]
    rows, facts = result["rows"], result["facts"]
    step = rows[f"{small} int8"]
    where = f"one thread ({machine['processor']}, {machine['cores']} cores, {result['run']['time_utc'][:10]})"
    size = f"{facts[small]['megabytes']['int8']:.1f} MB"
    sources = "[results](benchmarks/results/student.json), `python benchmarks/student.py`"
    took = f"takes {step['p50_ms']:.2f} ms (p99 {step['p99_ms']:.2f}) on {where}, {size}"
    lines = [
        f"One INT8 step of `{small}` {took} ({sources}). Medians, taken in turns:",
        "",
        "| beside | it is faster by |",
        "|---|---|",
    ]
    lines += [f"| {title} | {result[key]:.1f} × |" for key, title in ROWS.items() if key in result]
    if plain:
        lines += [
            (
                f"| with plain convolutions (`{plain}`): INT8 beside its own float32 step "
                f"| {result[f'int8_vs_fp32_{plain}']:.1f} × |"
            )
        ]
    shares = [f"{100 * facts[p]['eyes_share_of_conv_peak']:.0f} % (`{p}`)" for p in (small, plain) if p]
    lines += ["", f"The eyes reach {' and '.join(shares)} of the machine's INT8 convolution peak. "]
    if "paced_30_hz" in facts:
        p = facts["paced_30_hz"]
        lines[-1] += (
            f"At 30 Hz beside a thread that decodes and evicts caches: p50 {p['p50_ms']}, p99 {p['p99_ms']} ms. "
        )
    if "long_stream" in facts:
        s = facts["long_stream"]
        lines[-1] += f"After {s['minutes']:.0f} minutes of stream a step costs {s['step_old_vs_young']:.3f} of what it "
        lines[-1] += f"costs after one, and memory is {s['memory_after_vs_first_minute']:.3f} of what it was then."
    return "\n".join(lines)


def quality(result: dict[str, Any]) -> str:
    """The arms of the main comparison in one table."""
    first = result["arms"][0]["arm"]
    intro = f"Distilled beside hard labels only, through the INT8 engines, {result['sessions']} held-out synthetic "
    sources = "[results](benchmarks/results/distillation.json), [more](docs/ablation.md)"
    lines = [
        f"{intro}sessions, {result['seeds']} seeds ({sources}):",
        "",
        f"| | macro CCC | minus “{first}” | skill | minus “{first}” | of the attainable |",
        "|---|---|---|---|---|---|",
    ]
    for arm in result["arms"]:
        cells = [arm["arm"]]
        for key in ("macro CCC", "skill"):
            gain, low, high = arm["difference"][key]
            cells.append(f"{arm['value'][key]:.3f}")
            cells.append("" if arm["arm"] == first else f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]")
        cells.append(f"{100 * arm['value']['skill'] / result['bound_skill']:.0f} %")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost(result: dict[str, Any]) -> str:
    """What INT8 costs."""
    said = []
    for name in ("macro F1", "macro CCC"):
        gap, low, high = result[name]["difference"]
        said.append(f"{name} {gap:+.4f} [{low:+.4f}, {high:+.4f}]")
    source = "[results](benchmarks/results/int8_cost.json)"
    return f"INT8 minus a float student trained as long: {', '.join(said)} ({source})."


def labelling(result: dict[str, Any]) -> str:
    """How fast the teacher labels beside the library's loop, and what held it back."""
    run = result["run"]
    where = f"{run['machine']['processor']}, {run['machine']['cores']} cores, {run['time_utc'][:10]}"
    source = f"[results](benchmarks/results/teacher.json), `python benchmarks/teacher.py`, {where}"
    lines = [
        f"Labelling with the toy model on one thread of a shared machine, ratios taken in turns ({source}):",
        "",
        "| | × real time | media tokens/s | beside the plain per-clip loop | share of the matrix-product peak |",
        "|---|---|---|---|---|",
    ]
    for size, figures in result["sizes"].items():
        row = figures["rows"][figures["best"]]
        lines.append(
            f"| {size}, {figures['best'].removeprefix('ours, ')} | {row['times_real_time']:.0f} "
            f"| {row['media_tokens_per_s']:,} | {row['vs_plain']:.2f} × | {100 * row['mfu']:.0f} % |"
        )
    apart = max(max(f["difference_from_plain"].values()) for f in result["sizes"].values())
    lines += ["", f"Same weights, same labels: log-odds and probabilities differ by {apart:.1e} at most."]
    return "\n".join(lines)


def scoring(result: dict[str, Any]) -> str:
    """How fast the REACT scores are beside the reference's own way of computing them."""
    count, rows = result["run"]["config"]["items"], result["rows"]
    named = {
        "CCC": "CCC {} ×",
        "TLCC": "TLCC {} ×",
        "DTW, 2 neighbours": "DTW {} × with two appropriate reactions",
        "DTW, all neighbours": f"{{}} × with {count}",
        "DTW, all neighbours, noise": "{} × on noise",
        "DTW without numba, one prediction": "{} × without numba",
    }
    said = [told.format(f"{rows[key]['ratio']:.1f}") for key, told in named.items() if key in rows]
    source = "[results](benchmarks/results/metrics.json), [definitions and pitfalls](docs/metrics.md)"
    lines = [f"REACT scores beside one pair at a time with the reference's algorithm: {', '.join(said)} ({source})."]
    if "memory" in result:
        items, scores = result["memory"]["items"], result["memory"]["scores"]
        most = max(scores.values(), key=lambda score: score["growth"])["growth"]
        lines.append(f"From {items[0]} to {items[-1]:,} items memory grows with the power {most:.2f} of them at most.")
    return " ".join(lines)


BLOCKS = {
    "student": {"student": speed, "distillation": quality, "int8_cost": cost},
    "teacher": {"teacher": labelling, "metrics": scoring},
    "loop": {
        "loop": loop_figures.live,
        "servo_lag": loop_figures.servos,
        "network": loop_figures.network,
        "soak": loop_figures.soak,
    },
    "faces": {"faces": faces_figures.told},
}
"""README block → results file → how it is told."""


def main() -> int:
    """Read, format, write."""
    for block, tables in BLOCKS.items():
        parts = []
        for name, table in tables.items():
            path = RESULTS / f"{name}.json"
            if path.is_file():
                parts.append(table(read_json(path)))
            else:
                print(f"{path.name} is missing: its figures are left out")
        put_between(ROOT / "README.md", block, "\n\n".join(parts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
