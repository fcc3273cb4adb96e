"""Two real processes tune as one: DDP and accelerate's FSDP2, both over gloo on the CPU."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dyad import config as configuration
from dyad.synthetic.__main__ import main as make_dyads
from teacher import adapter, resume, tuner
from teacher.tune import Config
from teacher.windows import WindowSpec

REPOSITORY = Path(__file__).parent.parent
WINDOW = WindowSpec(frames=60, video_fps=5, size_px=56)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dyads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dyads")
    flags = ["--sessions", "3", "--seconds", "4.1", "--val-share", "0.3", "--voice", "formant", "--workers", "1"]
    assert make_dyads(["--out", str(root), *flags]) == 0
    return root


@pytest.fixture(scope="module")
def settings(dyads: Path) -> Config:
    return Config(
        dataset=dyads, out=Path("set by each test"), steps=4, batch=2, window=WINDOW, width=16, token_width=8,
        validate_every=2, threads=1,
    )  # fmt: skip


def _resume_point(folder: Path) -> dict:
    return torch.load(folder / resume.FILE, weights_only=True)


TOGETHER = """
import sys
from dataclasses import replace
from pathlib import Path
import accelerate
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor
from dyad.config import load, read_yaml
from teacher import tuner
from teacher.tune import Config

config = load(Config, Path(sys.argv[1]))
tuner.Tuner(replace(config, out=config.out / "ddp")).run()

train = tuner.Tuner._train_step
def stopped(self, parts):
    if self.step == 3:
        raise KeyboardInterrupt
    return train(self, parts)
class Sharded(accelerate.Accelerator):
    "accelerate keeps FSDP from CPUs; this is its own FSDP2 preparation, over gloo"
    def __init__(self, **options):
        super().__init__(**options)
        given = read_yaml(Path(sys.argv[2]))["fsdp_config"]
        self.state.distributed_type = DistributedType.FSDP
        self.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=given["fsdp_version"], auto_wrap_policy=given["fsdp_auto_wrap_policy"],
            transformer_cls_names_to_wrap=given["fsdp_transformer_layer_cls_to_wrap"].split(","),
            reshard_after_forward=given["fsdp_reshard_after_forward"], cpu_ram_efficient_loading=False,
        )
accelerate.Accelerator = Sharded
sharded = replace(config, out=config.out / "fsdp")
tuner.Tuner._train_step = stopped
first = tuner.Tuner(sharded)
assert all(isinstance(p, DTensor) for p in first.model.parameters())
try:
    first.run()
except KeyboardInterrupt:
    pass
tuner.Tuner._train_step = train
second = tuner.Tuner(sharded)
assert second.step == 2
second.run()
second.finish()
"""


@pytest.fixture(scope="module")
def together(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what two processes tuned: `ddp`, and `fsdp`, which was stopped after its resume point."""
    folder = tmp_path_factory.mktemp("together")
    configuration.save(replace(settings, out=folder), folder / "config.yaml")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(folder / "config.yaml"), "configs/teacher/fsdp.yaml"],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=250)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    (folder / "said1.txt").write_text(said[1], encoding="utf8")
    return folder


@pytest.fixture(scope="module")
def twice_accumulated(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process tunes that takes two forward passes to a step."""
    out = tmp_path_factory.mktemp("alone") / "teacher"
    tuner.Tuner(replace(settings, out=out, accumulate=2)).run()
    return out


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_tune_as_one_that_accumulates_twice_as_often(
    together: Path, twice_accumulated: Path, kind: str
) -> None:
    mine, theirs = (_resume_point(p) for p in (together / kind, twice_accumulated))
    assert mine["step"] == theirs["step"] == 4
    for name, weight in theirs["weights"].items():
        torch.testing.assert_close(mine["weights"][name], weight, atol=2e-3, rtol=0)
    moved = sum((w - adapter_start).abs().sum() for w, adapter_start in _moves(theirs["weights"]))
    assert moved > 0
    for one, other in zip(mine["history"], theirs["history"], strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-3)


def _moves(weights: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Adapters' second factors with the nought that they begin at."""
    return [(w, torch.zeros_like(w)) for name, w in weights.items() if "lora_B" in name]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_teacher_of_two_processes_loads_like_any_other(together: Path, kind: str) -> None:
    loaded, _ = adapter.load(together / kind)
    kept = _resume_point(together / kind)
    weights = {n.removeprefix("teacher."): w for n, w in kept["weights"].items()}
    mine = dict(loaded.named_parameters())
    best = max(kept["history"][1:], key=lambda r: r["ccc"])
    if best["step"] == kept["step"]:
        assert all(torch.equal(mine[n], w) for n, w in weights.items() if n in mine)
    assert all(torch.isfinite(p).all() for p in loaded.parameters())


def test_only_the_first_process_speaks(together: Path) -> None:
    said = (together / "said1.txt").read_text(encoding="utf8")
    assert "untuned" not in said
    assert "step/s" not in said
