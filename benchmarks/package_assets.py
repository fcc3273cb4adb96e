"""Make a finished chain the packaged one: engine, clip, model card, and the figures of the README.

    uv run python -m benchmarks.package_assets --chain out/packaged

Copies the engine, cuts the clip from a session that training never saw, keeps the reports as results files and writes
the README's figures from them: no figure there is typed by hand.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dyad import media
from dyad.clock import FPS, samples_until
from dyad.config import parse, run_main
from dyad.layouts import processed
from dyad.provenance import atomic_path, read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
ASSETS, RESULTS = ROOT / "deploy" / "assets", ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
CLIP_FRAMES = 12 * FPS
LIVELY = ("smile", "laugh", "funny", "surprising", "sad", "gross", "scary", "question")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which chain."""

    chain: Path
    """Output folder of make demo or make packaged-student."""


def liveliest(root: Path) -> tuple[str, int]:
    """Session and first frame of the stretch of a held-out session with the most kinds of lively events."""
    best = ("", 0, -1)
    for session in processed.load(root, "val"):
        with np.load(root / "truth" / f"{session.id}.npz", allow_pickle=False) as truth:
            events = truth["events"]
        for start in range(0, max(session.n_frames - CLIP_FRAMES, 0) + 1, FPS):
            inside = events[(events["onset"] >= start) & (events["onset"] < start + CLIP_FRAMES - 2 * FPS)]
            kinds = {str(k) for k in inside["kind"]} & set(LIVELY)
            score = 10 * len(kinds) + len(inside)
            if score > best[2]:
                best = (session.id, start, score)
    return best[0], best[1]


def cut_clip(root: Path, target: Path) -> None:
    """Twelve seconds of a held-out speaker, sound and all."""
    session_id, start = liveliest(root)
    frames = media.read_video(root / "media" / f"{session_id}_speaker.mp4", max_frames=start + CLIP_FRAMES)[start:]
    sound = media.read_audio(root / "media" / f"{session_id}_speaker.wav")
    piece = sound[samples_until(start) : samples_until(start + len(frames))]
    with atomic_path(target) as part:
        media.write_video(part, iter(frames), audio=piece, crf=20)


def picture(video: Path, target: Path) -> None:
    """The frame, once the curves have filled, in which the robot's face is furthest from where it began."""
    frames = media.read_video(video)
    heads = frames[:, ::4, 480:960:4].astype(np.int16)
    moved = np.abs(heads - heads[0]).mean(axis=(1, 2, 3))
    best = 6 * FPS + int(moved[6 * FPS :].argmax())
    cv2.imwrite(str(target), cv2.cvtColor(frames[best], cv2.COLOR_RGB2BGR))


def interval(entry: dict[str, Any]) -> str:
    """`0.31 [0.25, 0.36]`."""
    return f"{entry['value']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


def figures(report: dict[str, Any], run: dict[str, Any], chain: dict[str, Any]) -> str:
    """The README's tables."""
    machine, date = run["run"]["machine"], run["run"]["time_utc"][:10]
    ahead_ms = round(1000 * report["horizon_frames"] / FPS)
    rows = {"the packaged INT8 engine": "model", "mean predictor": "mean"}
    rows |= {"mimicry, least squares, perfect eyes": "mimicry", "mimicry, matched spread": "mimicry, spread"}
    made_on = f"Machine: {machine['processor']}, {machine['cores']} cores; {date}."
    scored = f"{report['sessions']} held-out synthetic sessions of {chain['sessions']} in all, {ahead_ms} ms ahead"
    source = "[results](benchmarks/results/evaluation.json), `make packaged-student`"
    lines = [
        f"{made_on} {scored}, 95 % intervals over sessions ({source}):",
        "",
        "| | macro CCC | skill over the mean predictor |",
        "|---|---|---|",
    ]
    for title, key in rows.items():
        scores = report["macro"][key]
        lines.append(f"| {title} | {interval(scores['macro_ccc'])} | {interval(scores['macro_skill'])} |")
    bound = report.get("bound")
    if bound:
        lines.append(f"| attainable, on {bound['sessions']} of them | {bound['ccc']:.2f} | {bound['skill']:.2f} |")
    lines += ["", "Engine minus rival, paired over sessions: "]
    for name, gaps in report["differences"].items():
        lines[-1] += f"{name} CCC {interval(gaps['macro_ccc'])}, skill {interval(gaps['macro_skill'])}; "
    total, student = run["stages"]["total"], run["stages"]["student"]
    lines[-1] = lines[-1].rstrip("; ") + "."
    speed = f"a tick takes {total['p50_ms']:.1f} ms (p99 {total['p99_ms']:.1f})"
    step = f"the student's step {student['p50_ms']:.2f} ms (p99 {student['p99_ms']:.2f})"
    counted = f"{run['ticks']} ticks at 30 Hz, {run['missed_ticks']} missed, face in {100 * run['face_share']:.0f} %"
    delay = (
        f"glass to motor {run['glass_to_motor_ms']:.0f} ms, of which {run['motor_lag_ms']:.0f} are the head's motors"
    )
    looking = f"compensated by looking {run['compensated_ms']:.0f} ms ahead"
    lines += ["", f"The loop on the packaged clip ([results](benchmarks/results/run.json)): {counted};"]
    lines += [f"{speed}, {step}; {delay}, {looking}."]
    return "\n".join(lines)


def card(manifest: dict[str, Any], report: dict[str, Any], chain: dict[str, Any]) -> str:
    """The model card."""
    spec = manifest["spec"]
    return f"""# The packaged student

**What it is.** A causal student with a {spec["backbone"]} backbone at {spec["crop_px"]} px, {spec["layers"]} layers of
width {spec["d_model"]}; nine horizons of 17 action units, 0 to 267 ms ahead; {manifest["precision"]} for
{manifest["runtime"]}.

**What it was trained on.** Synthetic dyads only: {chain["sessions"]} conversations of {chain["seconds"]:.0f} s with
drawn faces, synthetic voices and a scripted listener, made by `python -m dyad.synthetic` (seed {chain["seed"]}); no
recording of a person. The command that made it: `make packaged-student`.

**What that means.** It shows that the chain works end to end. Its reactions are those of the scripted listener, not of
people; on real faces it reacts, but nothing has been measured there about how well. Draw no conclusions about people
from it, and train your own student before you run a study.

**How good it is.** Macro CCC {interval(report["macro"]["model"]["macro_ccc"])} and skill
{interval(report["macro"]["model"]["macro_skill"])} over the mean predictor on held-out synthetic sessions.

**Its teacher** was the tiny random model of the Qwen2.5-Omni classes, tuned on the same sessions: it knows little,
and its soft labels weigh little.

**Parity with torch** over {manifest["parity"]["steps"]:.0f} steps: mean difference of probabilities
{manifest["parity"]["mean"]:.2g}, 99.9 percentile {manifest["parity"]["p999"]:.2g}.

Licence: Apache-2.0, like the rest.
"""


def main(argv: list[str] | None = None) -> int:
    """Copy, cut, run, write."""
    description = (__doc__ or "").splitlines()[0]
    config = parse(Config, argv, prog="python -m benchmarks.package_assets", description=description)
    chain = read_json(config.chain / "dyads" / "run.json")["config"]
    report = read_json(config.chain / "evaluation" / "report.json")
    with atomic_path(ASSETS / "engine") as part:
        shutil.copytree(config.chain / "engine", part)
    cut_clip(config.chain / "dyads", ASSETS / "clip.mp4")
    from deploy import run as deploy_run

    video = config.chain / "packaged_run.mp4"
    deploy_run.main(["--robot", "--save", str(video), "--report", str(RESULTS / "run.json")])
    picture(video, ROOT / "docs" / "run.png")
    write_json(RESULTS / "evaluation.json", report)
    run = read_json(RESULTS / "run.json")
    settings = run["run"]["config"]  # the defaults are absolute paths of this machine
    run["run"]["config"] = {k: v.removeprefix(f"{ROOT}/") if isinstance(v, str) else v for k, v in settings.items()}
    write_json(RESULTS / "run.json", run)
    manifest = read_json(ASSETS / "engine" / "manifest.json")
    (ASSETS / "MODEL_CARD.md").write_text(card(manifest, report, chain), encoding="utf8")
    text = (ROOT / "README.md").read_text(encoding="utf8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    body = figures(report, run, chain)
    (ROOT / "README.md").write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf8")
    print(f"packaged: {ASSETS}")
    return 0


if __name__ == "__main__":
    run_main(main)
