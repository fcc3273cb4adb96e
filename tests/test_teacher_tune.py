"""Tuning the tiny teacher: what learns, what is recorded, and runs that go on as if never stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dyad import config as configuration
from dyad.augment import AugmentConfig
from dyad.layouts import processed
from dyad.synthetic.__main__ import main as make_dyads
from teacher import adapter, resume, sampling, trust, tuner
from teacher.family import require_known
from teacher.loss_weights import LossWeights
from teacher.sampling import Dyad
from teacher.tune import Config
from teacher.windows import WindowSpec

REPOSITORY = Path(__file__).parent.parent
WINDOW = WindowSpec(frames=60, video_fps=5, size_px=56)
ALL_ON = LossWeights(cross_entropy=1, ccc=1, regression=1, focal=1, temporal=1)
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


@pytest.fixture(scope="module")
def tuned(settings: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher tuned for four steps, in one go."""
    out = tmp_path_factory.mktemp("tuned") / "teacher"
    run = tuner.Tuner(replace(settings, out=out))
    run.run()
    run.finish()
    return out


def _resume_point(folder: Path) -> dict:
    return torch.load(folder / resume.FILE, weights_only=True)


def _same_weights(first: Path, second: Path) -> bool:
    one, other = (_resume_point(p)["weights"] for p in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ---- what learns -------------------------------------------------------------------------------------------


def test_only_adapters_and_heads_learn_and_recomputed_activations_give_the_same_gradients(
    settings: Config, tmp_path: Path
) -> None:
    gradients = []
    for checkpointing in (False, True):
        config = replace(settings, out=tmp_path / str(checkpointing), lora_towers=True)
        run = tuner.Tuner(replace(config, gradient_checkpointing=checkpointing))
        run.model.train()
        part = run.feed.part(0, 0)
        torch.manual_seed(5)
        run._terms(part)["loss"].backward()
        gradients.append({n: p.grad for n, p in run.model.named_parameters() if p.grad is not None})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    assert all("lora_" in n or n.startswith(("teacher.read_out.", "speaker.")) for n in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-7, rtol=1e-5)


def _lamp(dyad: Dyad) -> Dyad:
    """The same with a lamp that goes on and off beside the speaker, and a listener who smiles while it is on."""
    rng = np.random.default_rng(len(dyad.session.id) + int(dyad.session.prob.sum()))
    on = np.repeat(rng.random(len(dyad.speaker.pictures) // 3 + 1) < 0.5, 3)[: len(dyad.speaker.pictures)]
    pictures = np.array(dyad.speaker.pictures)
    pictures[on, : WINDOW.size_px // 2] = 255
    shown = np.minimum(np.arange(len(dyad.session.prob)) // 6, len(on) - 1)
    smile = np.where(on, 0.9, 0.1)[shown, None]
    prob = np.broadcast_to(smile, dyad.session.prob.shape).astype(np.float32)
    session = replace(dyad.session, prob=prob, act=(prob > 0.5).astype(np.float32))
    return replace(dyad, session=session, speaker=replace(dyad.speaker, pictures=pictures))


def test_a_tuned_teacher_beats_its_untuned_self_and_the_mean_predictor_on_an_unseen_session(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tuner.Tuner._open
    monkeypatch.setattr(tuner.Tuner, "_open", lambda self, split: [_lamp(d) for d in opened(self, split)])
    config = replace(settings, out=tmp_path, steps=60, learning_rate=5e-3, validate_every=60)
    run = tuner.Tuner(config)
    run.run()
    untuned, best = run.history
    assert best["val_loss"] < untuned["val_loss"]
    assert best["skill"] > max(0.01, untuned["skill"])
    assert best["ccc"] > max(0.02, untuned["ccc"])


# ---- a run -------------------------------------------------------------------------------------------------


def test_tuning_is_recorded_with_its_untuned_self(tuned: Path) -> None:
    card = json.loads((tuned / "run.json").read_text())
    contract = json.loads((tuned / "teacher.json").read_text())
    lines = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    assert card["validation"][0]["step"] == 0
    assert {"val_loss", "skill", "ccc", "ccc/AU12"} <= set(card["validation"][-1])
    assert contract["fps"] == 30
    assert len(contract["au_names"]) == 17
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"loss", "cross_entropy", "speaker_au", "gradient_norm", "rate", "windows_per_s"} <= set(lines[0])
    assert list((tuned / "tensorboard").glob("events*"))


def test_what_is_saved_answers_as_what_was_tuned(settings: Config, tmp_path: Path) -> None:
    run = tuner.Tuner(replace(settings, out=tmp_path, steps=2))  # one validation: what was tuned last is saved
    run.run()
    loaded, contract = adapter.load(tmp_path)
    assert contract["read_out"]["horizons"] == 9
    batch, _ = run.feed.part(0, 0)
    run.teacher.eval()
    share = torch.tensor([run.history[-1][f"trust/{kind}"] for kind in ("prob", "act")])
    with torch.no_grad():
        answer: Tensor = loaded(batch)
        assert answer.shape == (2, 60, 9, 17, 2)
        torch.testing.assert_close(answer, trust.shrink(run.teacher(batch), run.base, share))


def test_tuning_stops_when_patience_runs_out(settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.0, 0.2, 0.1, 0.1, 0.3])
    trusted = {"val_loss": 1.0, "skill": 0.0, "trust/prob": 1.0, "trust/act": 1.0}
    monkeypatch.setattr(tuner.Tuner, "validate", lambda _: trusted | {"ccc": next(scores)})
    run = tuner.Tuner(replace(settings, out=tmp_path, steps=8, validate_every=1, patience=2))
    run.run()
    assert run.step == 3
    assert run.best == 0.2


@pytest.mark.parametrize(("key", "value"), [("learning_rate", 0.1), ("seed", 7), ("horizons", 3)])
def test_a_folder_of_another_run_is_refused_and_stays_as_it_was(
    settings: Config, tuned: Path, key: str, value: float
) -> None:
    before = (tuned / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=rf"another {key}; give another --out"):
        tuner.Tuner(replace(settings, out=tuned, **{key: value}))
    assert (tuned / "config.yaml").read_bytes() == before


def test_a_loss_that_is_not_finite_ends_the_run_with_a_remedy(settings: Config, tmp_path: Path) -> None:
    run = tuner.Tuner(replace(settings, out=tmp_path))
    run.train_set[0].session.prob[:] = np.inf
    run.train_set[1].session.prob[:] = np.inf
    with pytest.raises(ValueError, match=r"became .* at step 0.*lower --learning-rate"):
        run.run()


KILLED = """
import os, signal, sys
from pathlib import Path
from dyad.config import load
from teacher import tuner
from teacher.tune import Config
config = load(Config, Path(sys.argv[1]))
train = tuner.Tuner._train_step
def step(self, parts):
    if self.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(self, parts)
tuner.Tuner._train_step = step
tuner.Tuner(config).run()
"""


def test_a_run_killed_at_any_moment_goes_on_as_if_nothing_had_happened(
    settings: Config, tuned: Path, tmp_path: Path
) -> None:
    config = replace(settings, out=tmp_path / "teacher")
    configuration.save(config, tmp_path / "config.yaml")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "config.yaml")],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    with (config.out / "metrics.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # as a kill in the middle of a line leaves it
    second = tuner.Tuner(config)
    assert second.step == 2
    second.run()
    assert _resume_point(tuned)["history"][0] == _resume_point(config.out)["history"][0]
    assert _same_weights(tuned, config.out)
    steps = [json.loads(line)["step"] for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


# ---- presets and bases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tiny", "omni3b", "omni7b"])
def test_each_shipped_preset_loads(preset: str) -> None:
    path = REPOSITORY / "configs" / "teacher" / f"{preset}.yaml"
    flags = ["--config", str(path), "--dataset", "d", "--out", "o"]
    config = configuration.parse(Config, flags, prog="tune", description="")
    assert preset.removeprefix("omni").upper() in config.model.upper()
    assert sampling.lengths(config.window, config.window_min_s)[-1] == config.window.frames


def test_the_sharding_preset_is_one_that_accelerate_reads_and_names_layers_of_the_model() -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as modeling

    config = load_config_from_file(str(REPOSITORY / "configs" / "teacher" / "fsdp.yaml"))
    assert config.fsdp_config["fsdp_version"] == 2
    layers = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert set(layers) <= set(dir(modeling))


def test_a_base_of_another_family_is_refused_with_what_differs(tmp_path: Path) -> None:
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import Qwen3OmniMoeThinkerConfig

    config = Qwen3OmniMoeThinkerConfig()
    config.save_pretrained(tmp_path)
    assert config.vision_config.patch_size == 16
    assert config.vision_config.deepstack_visual_indexes
    with pytest.raises(ValueError, match=r"qwen3_omni_moe_thinker.*16 px.*13 to a second.*DeepStack.*use a Qwen2\.5"):
        require_known(tmp_path, "Qwen/Qwen3-Omni")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"not a Qwen2\.5-Omni"):
        require_known(tmp_path, "llama")


def test_augmentation_of_the_teacher_keeps_both_senses_by_default() -> None:
    config = Config(dataset=Path("d"), out=Path("o"))
    assert (config.augment.drop_sight, config.augment.drop_sound) == (0, 0)
    assert config.augment.stretch == AugmentConfig().stretch == 0.1
    assert processed.SPLITS == ("train", "val")
