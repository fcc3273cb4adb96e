"""The teacher end to end on its tiny model: what learns, what it sees, and labels that survive kills and bad media."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dyad import config as configuration
from dyad.layouts import processed
from dyad.soft_labels import SoftLabelStore
from dyad.synthetic.__main__ import main as make_dyads
from teacher import adapter, labeller, tuner
from teacher.backends.transformers import TransformersBackend
from teacher.label import Config as LabelConfig
from teacher.label import main as label
from teacher.qwen_omni import OmniTeacher, add_lora, load_base
from teacher.tune import Config as TuneConfig
from teacher.tune import main as tune
from teacher.windows import SpeakerMedia, WindowSpec

WINDOW = WindowSpec(frames=60, video_fps=5, size_px=56)
READ_OUT = {"units": 17, "width": 16, "span": 31, "dropout": 0.1}
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
def settings(dyads: Path) -> TuneConfig:
    return TuneConfig(
        dataset=dyads,
        out=Path("set by each test"),
        steps=4,
        batch=2,
        window=WINDOW,
        width=16,
        validate_every=2,
        threads=1,
    )


@pytest.fixture(scope="module")
def tuned(settings: TuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher tuned for four steps, in one go."""
    out = tmp_path_factory.mktemp("tuned") / "teacher"
    run = tuner.Tuner(replace(settings, out=out))
    run.run()
    run.finish()
    return out


@pytest.fixture(scope="module")
def teacher(tuned: Path) -> OmniTeacher:
    return adapter.load(tuned)[0]


@pytest.fixture(scope="module")
def store(dyads: Path, tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "store"
    assert label(_flags(dyads, tuned, out)) == 0
    return out


def _flags(dyads: Path, teacher: Path, out: Path) -> list[str]:
    return [*("--teacher", str(teacher), "--dataset", str(dyads), "--out", str(out)), *("--hop-frames", "24")]


def _media(seed: int, windows: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    side = WINDOW.size_px
    pictures = rng.integers(0, 256, (windows, WINDOW.pictures, side, side, 3), np.uint8)
    return pictures, rng.normal(0, 0.1, (windows, WINDOW.samples)).astype(np.float32)


def _shards(store: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in store.glob("*.safetensors")}


# ---- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("towers", [False, True])
def test_only_adapters_and_read_out_have_gradients(tuned: Path, towers: bool) -> None:
    thinker, processor, _ = load_base("tiny", tuned)
    thinker = add_lora(thinker, rank=2, alpha=4, dropout=0.0, towers=towers)
    fresh = OmniTeacher(thinker, processor, WINDOW, "predict", READ_OUT)
    with torch.no_grad():  # an adapter starts as zero times A: give B a value, so that A has a gradient as well
        for name, parameter in fresh.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    fresh(fresh.pack(*_media(0))).square().mean().backward()
    learning = {n for n, p in fresh.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learning == {n for n, p in fresh.named_parameters() if p.requires_grad}
    assert all("lora_" in n or n.startswith("read_out.") for n in learning)
    assert any("model.layers" in n for n in learning)
    assert any("visual" in n or "audio_tower" in n for n in learning) == towers


def test_hidden_states_equal_those_of_the_full_forward(teacher: OmniTeacher) -> None:
    batch = teacher.pack(*_media(1))
    with torch.no_grad():
        mine = teacher.hidden(batch)
        full = teacher.core(
            input_ids=teacher.ids.expand(2, -1),
            attention_mask=torch.ones(2, len(teacher.ids), dtype=torch.long),
            input_features=batch.features,
            feature_attention_mask=batch.feature_mask,
            pixel_values_videos=batch.pixel_values,
            video_grid_thw=batch.grid_thw,
            video_second_per_grid=torch.full((2,), 2 / WINDOW.video_fps),
            use_audio_in_video=True,
            output_hidden_states=True,
            return_dict=True,
        ).hidden_states[-1]
    torch.testing.assert_close(mine, full, atol=1e-5, rtol=1e-5)


def test_the_processor_makes_as_many_media_tokens_as_the_timeline_says(teacher: OmniTeacher) -> None:
    assert len(teacher.audio_at) == 25 * WINDOW.frames // 30
    assert len(teacher.video_at) == WINDOW.pictures // 2 * (WINDOW.size_px // 28) ** 2
    assert teacher.video_at[0] < teacher.audio_at[0] < teacher.audio_at[-1]


def test_a_batch_of_windows_gives_what_each_window_gives_alone(teacher: OmniTeacher) -> None:
    pictures, sounds = _media(2)
    with torch.no_grad():
        both = teacher(teacher.pack(pictures, sounds))
        alone = [teacher(teacher.pack(pictures[i : i + 1], sounds[i : i + 1]))[0] for i in range(2)]
    torch.testing.assert_close(both, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_the_offline_teacher_sees_sound_and_pictures_of_the_near_future(teacher: OmniTeacher) -> None:
    pictures, sounds = _media(3, 1)
    later, louder = pictures.copy(), sounds.copy()
    later[0, 6:] = 255 - later[0, 6:]
    louder[0, 20000:] *= -3
    with torch.no_grad():
        before = teacher(teacher.pack(pictures, sounds))
        for changed in (teacher.pack(later, sounds), teacher.pack(pictures, louder)):
            moved = (teacher(changed) - before).abs().amax(dim=(0, 2, 3))
            assert moved[30:36].max() > 1e-6


def test_a_merged_model_gives_the_same_labels(tuned: Path) -> None:
    model, _ = adapter.load(tuned)
    batch = model.pack(*_media(4))
    with torch.no_grad():
        adapted = model(batch)
        model.thinker = model.thinker.merge_and_unload()
        torch.testing.assert_close(model(batch), adapted, atol=1e-4, rtol=1e-4)


def test_the_teacher_runs_in_half_precision_with_checkpointed_gradients(tuned: Path) -> None:
    thinker, processor, _ = load_base("tiny", tuned)
    thinker = add_lora(thinker.to(torch.bfloat16), rank=2, alpha=4, dropout=0.0, towers=False)
    thinker.gradient_checkpointing_enable()
    half = OmniTeacher(thinker, processor, WINDOW, "predict", READ_OUT).train()
    logits = half(half.pack(*_media(5)))
    logits.square().mean().backward()
    assert logits.dtype == torch.float32
    adapted = [p.grad for n, p in half.named_parameters() if "lora_B" in n]
    assert all(g is not None and torch.isfinite(g).all() for g in adapted)
    assert any(g.abs().sum() > 0 for g in adapted if g is not None)


# ---- tuning ------------------------------------------------------------------------------------------------


def test_loss_ignores_what_was_not_annotated_in_either_target() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(2, 30, 3, 2)).astype(np.float32)).requires_grad_()
    prob = torch.from_numpy(rng.uniform(size=(2, 30, 3)).astype(np.float32))
    act = (prob > 0.5).float()
    prob[:, :, 0], act[:, :, 1] = torch.nan, torch.nan
    loss = tuner.loss_of(logits, prob, act, 0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert (logits.grad[:, :, 0, 0] == 0).all()
    assert (logits.grad[:, :, 1, 1] == 0).all()
    assert (logits.grad[:, :, 0, 1] != 0).all()
    assert (logits.grad[:, :, 2] != 0).all()


def test_tuning_is_recorded_with_its_untuned_self(tuned: Path) -> None:
    card = json.loads((tuned / "run.json").read_text())
    contract = json.loads((tuned / "teacher.json").read_text())
    assert card["validation"][0]["step"] == 0
    assert {"val_loss", "skill", "ccc"} <= set(card["validation"][-1])
    assert contract["fps"] == 30
    assert len(contract["au_names"]) == 17
    assert [json.loads(line)["step"] for line in (tuned / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_a_killed_tuning_goes_on_as_if_nothing_had_happened(settings: TuneConfig, tuned: Path, tmp_path: Path) -> None:
    config = replace(settings, out=tmp_path / "teacher")
    first = tuner.Tuner(config)
    train = first._train_step
    first._train_step = lambda: train() if first.step < 3 else (_ for _ in ()).throw(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = tuner.Tuner(config)
    assert second.step == 2
    second.run()
    straight = torch.load(tuned / "resume.pt", weights_only=True)
    resumed = torch.load(config.out / "resume.pt", weights_only=True)
    assert straight["history"] == resumed["history"]
    assert all(torch.equal(a, b) for a, b in zip(straight["weights"], resumed["weights"], strict=True))
    steps = [json.loads(line)["step"] for line in (config.out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


# ---- labelling ---------------------------------------------------------------------------------------------


def test_every_session_gets_a_label_for_each_of_its_frames(dyads: Path, store: Path) -> None:
    labels = SoftLabelStore.open(store)
    sessions = [s for split in processed.SPLITS for s in processed.load(dyads, split)]
    assert labels.ids() == sorted(s.id for s in sessions)
    for session in sessions:
        soft = labels.read(session.id)
        assert soft.prob.shape == (session.n_frames, 17)
        assert (soft.uncertainty >= 0).all()
        assert soft.uncertainty.max() > 0


def test_labels_of_two_window_grids_agree_within_their_uncertainty(tuned: Path) -> None:
    backend = TransformersBackend(tuned)
    rng = np.random.default_rng(6)
    speaker = SpeakerMedia(
        rng.integers(0, 256, (30, 56, 56, 3), np.uint8), rng.normal(0, 0.1, 96000).astype(np.float32), 180
    )
    answers = [labeller.label_session(backend, speaker, 180, WINDOW, hop=hop, passes=1, batch=4)[0] for hop in (12, 24)]
    assert np.abs(answers[0] - answers[1]).mean() < 0.01
    assert np.abs(answers[0] - answers[1]).max() < 0.1


def test_labelling_after_a_kill_and_a_damaged_shard_gives_the_same_bytes(
    dyads: Path, tuned: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(store, tmp_path / "store")
    shards = sorted((tmp_path / "store").glob("*.safetensors"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:100])
    (tmp_path / "store" / f"{shards[0].name}.part").write_bytes(b"half")
    assert label(_flags(dyads, tuned, tmp_path / "store")) == 0
    assert _shards(tmp_path / "store") == _shards(store)
    told = capsys.readouterr().out
    assert f"labelling {shards[1].stem} again" in told
    assert "2 sessions labelled, 1 already there, 0 left out" in told


def test_more_passes_tell_more_uncertainty_and_are_repeatable(tuned: Path) -> None:
    backend = TransformersBackend(tuned)
    pictures, sounds = _media(7, 1)
    speaker = SpeakerMedia(pictures[0], sounds[0], 60)
    once, *_, still = labeller.label_session(backend, speaker, 60, WINDOW, hop=60, passes=1, batch=1)
    runs = [labeller.label_session(backend, speaker, 60, WINDOW, hop=60, passes=3, batch=1) for _ in range(2)]
    assert still.max() < 1e-6
    assert runs[0][2].mean() > still.mean()
    assert np.array_equal(runs[0][0], runs[1][0])
    assert once.shape == (60, 17)


def test_a_session_with_broken_media_is_named_and_the_others_are_labelled(
    dyads: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "dyads"
    shutil.copytree(dyads, root, ignore=shutil.ignore_patterns("cache"))
    victim = processed.load(root, "train")[0]
    victim.speaker_video_path.write_bytes(b"not a video")
    assert label(_flags(root, tuned, tmp_path / "store")) == 3
    assert victim.id not in SoftLabelStore.open(tmp_path / "store")
    assert len(SoftLabelStore.open(tmp_path / "store").ids()) == 2
    assert f"left out {victim.id}" in capsys.readouterr().out


def test_a_listener_without_labels_is_labelled_all_the_same(dyads: Path, tuned: Path, tmp_path: Path) -> None:
    root, bare = tmp_path / "dyads", []
    for session in processed.load(dyads, "val"):  # the paths stay absolute: the media lie in the other folder
        unknown = np.full_like(session.prob, np.nan)
        bare.append(replace(session, prob=unknown, act=unknown))
    processed.write(root, "train", bare)
    assert label([*_flags(root, tuned, tmp_path / "store"), "--split", "train"]) == 0
    assert SoftLabelStore.open(tmp_path / "store").ids() == [s.id for s in bare]


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    dyads: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label([*_flags(dyads, tuned, tmp_path / "store"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("tokens", "TFLOP", "GPU hours", "MB"))
    assert not (tmp_path / "store").exists()


# ---- mistakes ----------------------------------------------------------------------------------------------


def test_a_model_that_is_not_here_is_answered_with_the_way_to_get_it(dyads: Path, tmp_path: Path) -> None:
    for name in ("Qwen/Qwen2.5-Omni-3B", str(tmp_path / "no_model")):
        with pytest.raises(ValueError, match=r"pass --model DIR") as caught:
            load_base(name, tmp_path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("au_names", ["AU1"], "other action units"), ("fps", 25, "another rate"), ("base_hash", "0", "another base")],
)
def test_a_teacher_made_for_something_else_is_refused_by_name(
    tuned: Path, tmp_path: Path, key: str, value: object, told: str
) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(tuned, folder)
    contract = json.loads((folder / "teacher.json").read_text())
    (folder / "teacher.json").write_text(json.dumps(contract | {key: value}))
    with pytest.raises(ValueError, match=told):
        adapter.load(folder)


def test_damaged_heads_are_named_with_a_remedy(tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(tuned, folder)
    (folder / "heads.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"heads\.safetensors.*tune again"):
        adapter.load(folder)


def test_what_is_missing_is_said_before_anything_heavy_is_imported(dyads: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher\.tune"):
        label(_flags(dyads, tmp_path, tmp_path / "store"))
    with pytest.raises(ValueError, match=r"dyad\.synthetic"):
        tune(["--dataset", str(tmp_path), "--out", str(tmp_path / "teacher")])
    with pytest.raises(ValueError, match="no_such_session"):
        label([*_flags(dyads, tuned, tmp_path / "store"), "--only", "no_such_session"])


@pytest.mark.parametrize("command", ["teacher.tune", "teacher.label"])
def test_help_is_given_without_importing_torch(command: str) -> None:
    code = (
        f"import sys; from {command} import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("preset", ["tiny", "omni3b", "omni7b"])
def test_each_shipped_preset_of_the_teacher_loads(preset: str) -> None:
    path = Path(__file__).parent.parent / "configs" / "teacher" / f"{preset}.yaml"
    config = configuration.parse(
        TuneConfig, ["--config", str(path), "--dataset", "d", "--out", "o"], prog="tune", description=""
    )
    assert preset.removeprefix("omni").upper() in config.model.upper()
    assert LabelConfig(teacher=Path("t"), dataset=Path("d"), out=Path("o")).passes >= 1
