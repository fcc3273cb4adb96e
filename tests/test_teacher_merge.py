"""A merged teacher: the same labels from one folder, written whole or not at all."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_teacher
import torch
from safetensors.torch import load_file

from dyad.config import from_dict
from teacher import adapter, merge, merged
from teacher.backends import vllm as vllm_backend
from teacher.backends.transformers import TransformersBackend
from teacher.qwen_omni import OmniTeacher
from teacher.windows import SpeakerMedia

REPOSITORY = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher.write(tmp_path_factory.mktemp("tuned") / "teacher")


@pytest.fixture(scope="module")
def serving(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "teacher"
    assert merge.main(["--teacher", str(tuned), "--out", str(out), "--shard-gb", "0.001"]) == 0
    return out


def _media() -> tuple[np.ndarray, np.ndarray]:
    rng, spec = np.random.default_rng(0), tiny_teacher.WINDOW
    pictures = rng.integers(0, 256, (2, spec.pictures, spec.size_px, spec.size_px, 3), np.uint8)
    return pictures, rng.normal(0, 0.1, (2, spec.samples)).astype(np.float32)


def _speaker() -> SpeakerMedia:
    (pictures, *_), (sound, *_) = _media()
    return SpeakerMedia(pictures, sound, tiny_teacher.WINDOW.frames)


def _logits(teacher: OmniTeacher) -> torch.Tensor:
    with torch.no_grad():
        return teacher(teacher.pack(*_media()))


# ---- what is written ---------------------------------------------------------------------------------------


def test_a_merged_teacher_answers_as_its_adapter_on_its_base_does(tuned: Path, serving: Path) -> None:
    apart, (together, contract) = _logits(adapter.load(tuned)[0]), adapter.load(serving)
    difference = float((_logits(together) - apart).abs().max())
    print(f"largest difference of log-odds {difference:.1e}, largest log-odds {float(apart.abs().max()):.2f}")
    assert difference < 1e-4
    assert contract["merged_from"] == adapter.teacher_hash(tuned)
    assert not any("lora" in name for name, _ in together.named_parameters())


def test_the_adapter_is_not_at_rest_so_that_merging_it_shows(tuned: Path, serving: Path) -> None:
    bare, _ = adapter.load(tuned)
    with bare.thinker.disable_adapter():
        plain = _logits(bare)
    assert (plain - _logits(adapter.load(serving)[0])).abs().max() > 1e-2


def test_a_merged_teacher_labels_through_the_transformers_back_end(tuned: Path, serving: Path) -> None:
    apart, together = (TransformersBackend.load(folder).features(_speaker(), [0]) for folder in (tuned, serving))
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_half_precision_changes_labels_by_its_rounding_alone(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    assert merge.main(["--teacher", str(tuned), "--out", str(out), "--dtype", "bfloat16"]) == 0
    weights = load_file(out / "model.safetensors")
    assert {v.dtype for k, v in weights.items() if k.startswith("thinker.")} == {torch.bfloat16}
    assert {v.dtype for k, v in weights.items() if k.startswith("pooler.")} == {torch.float32}
    probability = [torch.sigmoid(_logits(adapter.load(folder)[0])) for folder in (tuned, out)]
    difference = float((probability[0] - probability[1]).abs().max())
    print(f"largest difference of probabilities in half precision {difference:.1e}")
    assert difference < 0.02
    assert adapter.teacher_hash(out) != adapter.teacher_hash(tuned)


def test_the_index_names_every_weight_and_never_the_heads(serving: Path) -> None:
    places = json.loads((serving / merged.INDEX).read_text())["weight_map"]
    shards = {path.name for path in serving.glob("model-*.safetensors")}
    assert len(shards) > 1
    assert set(places.values()) == shards
    stored = {name for shard in shards for name in load_file(serving / shard)}
    assert stored == set(places)
    assert {"pooler.tokens.video.weight", "pooler.tokens.audio.weight"} <= stored


def test_the_same_teacher_merged_in_two_places_is_the_same_teacher(tuned: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(tuned, tmp_path / "elsewhere")
    for source, out in ((tuned, "first"), (elsewhere, "second")):
        assert merge.main(["--teacher", str(source), "--out", str(tmp_path / out)]) == 0
    assert adapter.teacher_hash(tmp_path / "first") == adapter.teacher_hash(tmp_path / "second")


def test_the_configuration_is_what_vllm_looks_for(serving: Path) -> None:
    config = json.loads((serving / "config.json").read_text())
    assert config["architectures"] == [merged.ARCHITECTURE]
    assert config["model_type"] == "qwen2_5_omni"
    assert config["thinker_config"]["vision_start_token_id"] is not None
    assert config["token_width"] == tiny_teacher.READ_OUT["token_width"]
    assert json.loads((serving / "teacher.json").read_text())["dtype"] == config["dtype"] == "float32"


def test_the_read_out_and_its_times_load_without_the_thinker(serving: Path) -> None:
    teacher, _ = adapter.load(serving)
    read_out, layout, spec = merged.load_read_out(serving)
    features = torch.from_numpy(TransformersBackend.load(serving).features(_speaker(), [0]))
    with torch.no_grad():
        torch.testing.assert_close(read_out(features, layout), _logits(teacher)[:1], atol=1e-4, rtol=1e-4)
    assert spec == teacher.spec


# ---- all or nothing ----------------------------------------------------------------------------------------


def test_a_merge_that_is_stopped_leaves_the_earlier_one_as_it_was(
    tuned: Path, serving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in serving.iterdir()}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merged, "_save_config", stop)
    with pytest.raises(KeyboardInterrupt):
        merge.main(["--teacher", str(tuned), "--out", str(serving)])
    assert {path.name: path.read_bytes() for path in serving.iterdir()} == before


def test_merging_again_replaces_the_earlier_one_as_a_whole(tuned: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    for shard in ("0.001", "5"):
        assert merge.main(["--teacher", str(tuned), "--out", str(out), "--shard-gb", shard]) == 0
    assert {path.name for path in out.glob("model*.safetensors")} == {"model.safetensors"}


def test_a_folder_of_something_else_is_never_overwritten(tuned: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    for out in (tmp_path, precious, tuned):
        with pytest.raises(ValueError, match=r"something else than a merged teacher; give another --out"):
            merge.main(["--teacher", str(tuned), "--out", str(out)])
    assert precious.read_text() == "mine"


def test_what_cannot_be_merged_is_refused_with_the_way_out(serving: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"python -m teacher\.tune"):
        merge.main(["--teacher", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match=r"merged already"):
        merge.main(["--teacher", str(serving), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        merge.main(["--teacher", str(serving), "--out", str(tmp_path / "out"), "--shard-gb", "0"])


def test_a_merged_folder_without_its_index_is_refused(serving: Path, tmp_path: Path) -> None:
    contract = json.loads((serving / "teacher.json").read_text())
    with pytest.raises(ValueError, match=r"index\.json: missing; merge again"):
        merged.load(tmp_path, contract)


def test_help_is_given_without_importing_torch() -> None:
    code = (
        "import sys; from teacher.merge import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- the vLLM back end, where there is no vLLM -------------------------------------------------------------


def test_vllm_is_offered_a_merged_teacher_or_says_how_to_make_one(tuned: Path) -> None:
    with pytest.raises(ValueError, match=r"not a merged teacher.*python -m teacher\.merge"):
        vllm_backend.VllmBackend(tuned)


def test_a_missing_vllm_is_answered_with_its_install_command(serving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_backend.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ValueError, match=r"uv sync --extra vllm"):
        vllm_backend.VllmBackend(serving)


def test_a_missing_gpu_is_said_before_the_engine_starts(serving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_TARGET_DEVICE", raising=False)
    monkeypatch.setattr(vllm_backend.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"needs a GPU.*--backend transformers"):
        vllm_backend.VllmBackend(serving)


@pytest.mark.parametrize("flags", [{"gpu_memory_utilization": 1.5}, {"max_num_seqs": 0}])
def test_settings_that_vllm_cannot_run_with_are_refused(flags: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        from_dict(vllm_backend.Config, flags, where="test")


def test_vllm_finds_our_model_by_the_declared_entry_point() -> None:
    import tomllib
    from importlib.metadata import EntryPoint

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf8"))["project"]
    declared = project["entry-points"]["vllm.general_plugins"]
    loaded = [EntryPoint(name, value, "vllm.general_plugins").load() for name, value in declared.items()]
    assert vllm_backend.register in loaded
