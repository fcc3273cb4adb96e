"""Several processes train one student: equal weights everywhere, averaged gradients, one writer; and mixed precision.

Two processes are started once, on the CPU (gloo), and run `DRIVER`; the tests read what each of them noted down.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.batches import Batch
from distill.crew import Crew
from distill.train import Config
from distill.trainer import Trainer
from distill.weights import LossWeights
from dyad.provenance import sha256_bytes
from dyad.synthetic.__main__ import main as make_dyads
from student import checkpoint
from student.spec import StudentSpec

TINY = StudentSpec(
    crop_px=32, d_model=32, layers=1, heads=2, window_frames=16, ffn=32, visual_channels=8, dropout=0.0
)  # fmt: skip
REPOSITORY = Path(__file__).resolve().parent.parent

DRIVER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
written, watched = [], str(folder)

def watch(event, arguments):
    if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir") or (
        event == "open" and (str(arguments[1] or "r")[0] in "wax" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    ):
        written.extend(str(a) for a in arguments if isinstance(a, (str, os.PathLike)) and str(a).startswith(watched))

sys.addaudithook(watch)

import torch

from distill.trainer import Trainer
from tests import test_crew as shared

def drawn(trainer):
    draws = ((0, 0), (1, 0), (0, 2))
    return [int(trainer.data.batch(step, purpose).audio.double().sum() * 1e6) for step, purpose in draws]

base = shared.base_config(folder)
whole = Trainer(replace(base, out=folder / "whole"), shared.TINY)
seen = {"rank": whole.crew.rank, "size": whole.crew.size, "start": shared.hash_of(whole), "drawn": drawn(whole)}
whole.run()
if whole.crew.leads:
    whole.ship()
seen |= {"end": shared.hash_of(whole), "averaged": shared.hash_of_model(whole.averaged)}
seen["quantised"] = bool(shared.layout_of(whole.model))

single = replace(base, eyes_steps=0, loss=shared.ADDITIVE)
trainer = Trainer(replace(single, out=folder / "step"), shared.TINY)
seen["loss"] = trainer._train_step(shared.made_up(rank))["loss"]
torch.save(shared.gradients_of(trainer), folder / f"gradients{rank}.pt") if rank == 0 else None
seen["gradients"] = shared.hash_of_tensors(shared.gradients_of(trainer))

trainer = Trainer(replace(single, out=folder / "half"), shared.TINY)
batch = shared.made_up(rank)
if rank == 1:
    batch.speaker_au.fill_(torch.nan)
trainer._train_step(batch)
seen["half"] = shared.hash_of(trainer)
seen["half_gradient"] = float(trainer.speaker_head.weight.grad.abs().max())

trainer = Trainer(replace(single, out=folder / "nan", freeze_eyes=True), shared.TINY)
trainer._train_step(batch := trainer.data.batch(0))
seen["unused"] = trainer.speaker_head.weight.grad is None
trainer.step += 1
if rank == 1:
    batch.audio.fill_(torch.nan)
try:
    trainer._train_step(batch)
except ValueError as error:
    seen["refusal"] = str(error)

seen["written"] = [p for p in written if not p.endswith(f"seen{rank}.json")]
(folder / f"seen{rank}.json").write_text(json.dumps(seen))
"""

ADDITIVE = LossWeights(ccc=0.0, soft=0.0, hard=0.05, speaker_au=0.05)
"""A loss that is a plain mean over cells: the mean of two batches' losses is the loss of both together.

Small enough that no gradient is clipped.
"""


def base_config(folder: Path) -> Config:
    """Three float steps and two quantisation-aware ones."""
    return Config(
        dataset=folder / "dyads", out=folder / "run", eyes_steps=1, steps=3, qat_steps=2, validate_every=100,
        batch=2, clip_frames=16, threads=1, workers=1, device="cpu",
    )  # fmt: skip


def made_up(rank: int, frames: int = 12) -> Batch:
    """Two clips in which everything is annotated."""
    maker = torch.Generator().manual_seed(rank)

    def rand(*shape: int) -> Tensor:
        return torch.rand(2, frames, *shape, generator=maker)

    targets = {k: rand(9, 17) for k in ("prob", "act", "soft_prob", "soft_act", "uncertainty")}
    return Batch(
        frame_u8=(255 * rand(32, 32, 3)).to(torch.uint8),
        audio=0.1 * rand(800),
        present=torch.ones(2, frames, 2),
        speaker_au=rand(17),
        seen=torch.zeros(2, frames, 0),
        **targets,
    )


def gradients_of(trainer: Trainer) -> dict[str, Tensor]:
    named = [*trainer.model.named_parameters(), *trainer.speaker_head.named_parameters(prefix="speaker_head")]
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def hash_of_tensors(tensors: dict[str, Tensor]) -> str:
    return sha256_bytes(b"".join(t.detach().contiguous().numpy().tobytes() for _, t in sorted(tensors.items())))


def hash_of_model(model: torch.nn.Module) -> str:
    return hash_of_tensors(model.state_dict())


def hash_of(trainer: Trainer) -> str:
    """Of the student, its averaged twin and the head beside them."""
    return " ".join(hash_of_model(m) for m in (trainer.model, trainer.averaged, trainer.speaker_head))


def layout_of(model: torch.nn.Module) -> dict[str, Any]:
    from student.quantization import layout_of as layout

    return layout(model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dyads, decoded beforehand by the first run in this process."""
    root = tmp_path_factory.mktemp("crew")
    flags = ["--sessions", "3", "--seconds", "3", "--val-share", "0.3", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root / "dyads"), *flags]) == 0
    return root


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """One process, before its first step."""
    config = replace(base_config(folder), out=tmp_path_factory.mktemp("alone"), eyes_steps=0, loss=ADDITIVE)
    return Trainer(config, TINY)


@pytest.fixture(scope="module")
def pair(folder: Path) -> list[dict[str, Any]]:
    """What the first and the second of two processes noted down."""
    (folder / "driver.py").write_text(DRIVER, encoding="utf8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, str(folder / "driver.py"), str(folder)],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=200)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    (folder / "said0.txt").write_text(said[0], encoding="utf8")
    (folder / "said1.txt").write_text(said[1], encoding="utf8")
    return [json.loads((folder / f"seen{rank}.json").read_text(encoding="utf8")) for rank in (0, 1)]


# ---- alone ----------------------------------------------------------------------------------------------------


def test_alone_the_seeds_are_the_plain_ones_and_averaging_changes_nothing() -> None:
    crew = Crew(device="cpu")
    assert (crew.size, crew.rank, crew.leads) == (1, 0, True)
    assert crew.seed(7, 0, 3) == [7, 0, 3]
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    weights[0].grad = torch.tensor([1.0, -2.0, 1e-20])
    crew.average(weights)
    assert weights[0].grad.tolist() == torch.tensor([1.0, -2.0, 1e-20]).tolist()
    assert weights[1].grad is None
    assert float(crew.total(torch.tensor(2.5))) == 2.5


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_here_is_refused_by_name_and_auto_takes_the_processor() -> None:
    with pytest.raises(ValueError, match=r"device 'cuda:1': torch sees no GPU here; use --device cpu"):
        Crew(device="cuda:1")
    assert Crew(device="auto").device == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_by_name(device: str) -> None:
    with pytest.raises(ValueError, match=rf"device '{device}'.*use --device cpu"):
        Crew(device=device)


def test_a_device_is_refused_alike_when_there_are_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device 'gpu' is not here"):
        Crew(device="gpu")


# ---- two processes --------------------------------------------------------------------------------------------


def test_two_processes_know_their_places_and_draw_clips_of_their_own(pair: list[dict[str, Any]]) -> None:
    assert [(p["rank"], p["size"]) for p in pair] == [(0, 2), (1, 2)]
    for step in (0, 1):
        assert pair[0]["drawn"][step] != pair[1]["drawn"][step]
    assert pair[0]["drawn"][2] == pair[1]["drawn"][2], "the clips that calibrate must be the same everywhere"


def test_weights_are_equal_in_both_processes_from_the_start_to_the_quantised_end(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["start"] == pair[1]["start"]
    assert pair[0]["end"] == pair[1]["end"] != pair[0]["start"]
    assert pair[0]["quantised"]
    assert pair[1]["quantised"]


def test_only_the_first_process_writes_and_speaks(pair: list[dict[str, Any]], folder: Path) -> None:
    assert pair[1]["written"] == []
    assert any(p.endswith("resume.pt.part") for p in pair[0]["written"]), "the watch must see the first one write"
    said = [(folder / f"said{rank}.txt").read_text(encoding="utf8") for rank in (0, 1)]
    assert "train: 2 sessions" in said[0]
    assert "sessions" not in said[1]
    assert "checkpoint" not in said[1]
    assert len((folder / "whole" / "metrics.jsonl").read_text(encoding="utf8").splitlines()) == 5


def test_the_student_that_two_processes_ship_is_the_averaged_one(pair: list[dict[str, Any]], folder: Path) -> None:
    assert (folder / "whole" / "checkpoint" / "quant.json").is_file()
    assert not (folder / "whole" / "float" / "quant.json").exists()
    from safetensors.torch import load_file

    shipped = load_file(str(folder / "whole" / "checkpoint" / "model.safetensors"))
    assert hash_of_tensors(shipped) == pair[0]["averaged"]
    assert checkpoint.load(folder / "whole" / "checkpoint").spec == TINY


def test_the_averaged_gradient_is_that_of_both_batches_together(
    pair: list[dict[str, Any]], folder: Path, alone: Trainer
) -> None:
    both = [made_up(rank) for rank in (0, 1)]
    together = Batch(**{k: torch.cat([getattr(b, k) for b in both]) for k in vars(both[0])})
    start = {m: m.state_dict() for m in (alone.model, alone.speaker_head)}
    kept = [{k: v.clone() for k, v in state.items()} for state in start.values()]
    loss = alone._train_step(together)["loss"]
    want = gradients_of(alone)
    for module, state in zip(start, kept, strict=True):
        module.load_state_dict(state)
    got = torch.load(folder / "gradients0.pt", weights_only=True)
    assert got.keys() == want.keys()
    assert loss == pytest.approx((pair[0]["loss"] + pair[1]["loss"]) / 2, rel=1e-5)
    assert pair[0]["gradients"] == pair[1]["gradients"]
    assert float(torch.cat([g.flatten() for g in want.values()]).norm()) < 0.99, "a clipped gradient has no length"
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-6, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    alone.optimizer = alone._new_optimizer()
    alone._train_step(both[0])
    worst = max(float((g - got[n]).abs().max()) for n, g in gradients_of(alone).items())
    assert worst > 1e-4, "one half alone must give another gradient"
    for module, state in zip(start, kept, strict=True):
        module.load_state_dict(state)


def test_weights_stay_equal_when_only_one_process_knows_its_speakers(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["half"] == pair[1]["half"]
    assert pair[0]["half_gradient"] == pair[1]["half_gradient"] > 0


def test_a_weight_that_no_process_trains_gets_no_gradient(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["unused"]
    assert pair[1]["unused"]


def test_a_loss_that_is_no_number_in_one_process_stops_both_and_keeps_the_last_good_state(
    pair: list[dict[str, Any]], folder: Path
) -> None:
    for process in pair:
        assert process["refusal"].startswith("loss became nan at step 1; the last good checkpoint is kept in")
    kept = checkpoint.load(folder / "nan" / "last_good")
    assert all(torch.isfinite(v).all() for v in kept.state_dict().values())


# ---- mixed precision ------------------------------------------------------------------------------------------


def trained(folder: Path, out: Path, precision: str) -> tuple[list[float], list[torch.dtype]]:
    """Losses of a run, and the arithmetic in which its log-odds were made at each step."""
    config = replace(base_config(folder), out=out, precision=precision, steps=2)
    trainer = Trainer(config, TINY)
    kinds: list[torch.dtype] = []

    def note(_module: torch.nn.Module, _inputs: object, output: Tensor) -> None:
        if trainer.model.training:
            kinds.append(output.dtype)

    honest = trainer._train_step

    def step(batch: Batch) -> dict[str, float]:
        handle = trainer.model.heads.out.register_forward_hook(note)
        terms = honest(batch)
        handle.remove()
        return terms

    trainer._train_step = step  # pyright: ignore[reportAttributeAccessIssue]
    trainer.run()
    assert all(p.dtype == torch.float32 for p in trainer.averaged.parameters())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf8").splitlines()]
    return [row["loss"] for row in rows], kinds


def test_bfloat16_trains_the_float_steps_near_float32_and_leaves_quantisation_in_float32(
    folder: Path, tmp_path: Path
) -> None:
    half, kinds = trained(folder, tmp_path / "half", "bfloat16")
    full, _ = trained(folder, tmp_path / "full", "float32")
    assert kinds == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert np.isfinite(half).all()
    assert half[0] == pytest.approx(full[0], rel=0.02)
    assert half[0] != full[0], "the arithmetic must differ"


def test_a_quantisation_aware_step_is_the_same_in_either_precision(folder: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        config = replace(base_config(folder), out=tmp_path / precision, precision=precision, eyes_steps=0, steps=1)
        trainer = Trainer(config, TINY)
        trainer.step = 1
        trainer._begin_quantisation()
        losses.append(trainer._train_step(made_up(0))["loss"])
    assert losses[0] == losses[1]
