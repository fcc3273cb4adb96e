"""The teacher's words: the library's own tokens, exact likelihoods, the base without its adapter, whole sessions."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dyad.events import EMOTIONS, EventStore, covering
from teacher.describe import (
    AFTER,
    BEFORE,
    Answer,
    DescribeConfig,
    OmniDescriber,
    asked,
    describe_session,
    is_over,
    one_sentence,
    questions,
)
from teacher.describe_vllm import VllmDescriber, beginnings
from teacher.qwen_omni import OmniTeacher, add_lora, load_base
from teacher.windows import SpeakerMedia, WindowSpec

WINDOW = WindowSpec(frames=60, video_fps=5, size_px=56)
READ_OUT = {"units": 17, "horizons": 9, "token_width": 8, "width": 16, "span": 31, "dropout": 0.1}
SETTINGS = DescribeConfig(max_new_tokens=12, batch=2)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _teacher(folder: Path, *, towers: bool = True, tuned_by: float = 0.0) -> OmniTeacher:
    """A tiny teacher with an adapter in language and towers, moved away from the base by `tuned_by`."""
    thinker, processor, _ = load_base("tiny", folder)
    for name, weight in thinker.named_parameters():  # as drawn, its layers add so little that media change no word
        if name.startswith("model.layers") and weight.ndim == 2:
            weight.data.mul_(8)
    thinker = add_lora(thinker, rank=2, alpha=4, dropout=0.5, towers=towers)
    generator = torch.Generator().manual_seed(1)
    for name, weight in thinker.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(tuned_by * torch.randn(weight.shape, generator=generator))
    return OmniTeacher(thinker, processor, WINDOW, "predict", READ_OUT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> OmniTeacher:
    return _teacher(folder, tuned_by=0.3)


def _media(seconds: int = 2, windows: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures and sound."""
    rng = np.random.default_rng(seconds)
    pictures = rng.integers(0, 256, (windows, 5 * seconds, WINDOW.size_px, WINDOW.size_px, 3), np.uint8)
    return pictures, rng.normal(0, 0.1, (windows, 16000 * seconds)).astype(np.float32)


def _library_inputs(
    teacher: OmniTeacher, media: tuple[np.ndarray, np.ndarray], question: str, answer: str = ""
) -> dict[str, Any]:
    """What transformers' own processor makes of the same conversation."""
    text = f"{BEFORE}<|vision_bos|><|VIDEO|><|vision_eos|>{question}{AFTER}{answer}"
    how = {"fps": WINDOW.video_fps, "do_resize": False, "do_sample_frames": False, "use_audio_in_video": True}
    made = teacher.processor(
        text=[text] * len(media[0]), videos=list(media[0]), audio=list(media[1]), videos_kwargs=how, return_tensors="pt"
    )
    return {**made, "use_audio_in_video": True, "video_second_per_grid": torch.full((len(media[0]),), 0.4)}


def _library_tokens(teacher: OmniTeacher, media: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    """The library's own greedy answers to the first question."""
    inputs = _library_inputs(teacher, media, questions(SETTINGS)[0])
    with torch.no_grad():
        said: Tensor = teacher.eval().core.generate(
            **inputs, do_sample=False, max_new_tokens=SETTINGS.max_new_tokens, eos_token_id=None
        )
    return said[:, inputs["input_ids"].shape[1] :].tolist()


def _library_likelihoods(teacher: OmniTeacher, media: tuple[np.ndarray, np.ndarray], words: tuple[str, ...]) -> Tensor:
    """Log-probabilities [B, E] by a whole forward pass for each word."""
    question, found = questions(DescribeConfig(emotions=words))[1], []
    for word in words:
        inputs = _library_inputs(teacher, media, question, f"{word}<|im_end|>")
        count = len(word) + 1  # a token a byte, and the end
        with torch.no_grad():
            scores = teacher.eval().core(**inputs).logits[:, -count - 1 : -1].double().log_softmax(-1)
        found.append(scores.gather(-1, inputs["input_ids"][:, -count:, None])[..., 0].sum(-1))
    return torch.stack(found, dim=-1)


class Counting:
    """A describer that answers with the number of its windows so far; killed after `lives` windows."""

    def __init__(self, lives: int = 1000) -> None:
        self.asked, self.lives = 0, lives

    def answers(self, pictures: np.ndarray, sounds: np.ndarray) -> list[Answer]:
        """See `Describer`."""
        self.asked += len(pictures)
        if self.asked > self.lives:
            raise KeyboardInterrupt
        level = float(np.abs(sounds).mean())
        return [Answer(f"{p.mean():.3f} {level:.6f}", (0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)) for p in pictures]


def _speaker(n_frames: int, seed: int = 0) -> SpeakerMedia:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (-(-n_frames // 6), WINDOW.size_px, WINDOW.size_px, 3), np.uint8)
    return SpeakerMedia(pictures, rng.normal(0, 0.1, n_frames * 16000 // 30).astype(np.float32), n_frames)


# ---- the model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [2, 4, 6])
def test_a_description_is_token_for_token_the_library_s_own(teacher: OmniTeacher, seconds: int) -> None:
    media = _media(seconds)
    describer = OmniDescriber(teacher, SETTINGS)
    with teacher.thinker.disable_adapter():
        library = _library_tokens(teacher, media)
        with torch.no_grad():
            mine = describer._greedy(*describer._media(teacher.pack(*media)))
    assert mine == library
    assert library[0] != library[1]


@pytest.mark.parametrize("words", [EMOTIONS, ("sad", "sadness", "sadness itself")])
def test_an_emotion_s_probability_is_that_of_its_whole_word_by_brute_force(
    teacher: OmniTeacher, words: tuple[str, ...]
) -> None:
    media = _media()
    with teacher.thinker.disable_adapter():
        wanted = _library_likelihoods(teacher, media, words)
    describer = OmniDescriber(teacher, DescribeConfig(max_new_tokens=1, emotions=words))
    with torch.no_grad(), teacher.thinker.disable_adapter():
        cache, at = describer._media(teacher.pack(*media))
        torch.testing.assert_close(describer._likelihoods(cache, at).double(), wanted, atol=1e-3, rtol=1e-4)
    probs = torch.tensor([a.emotion_probs for a in describer.answers(*media)], dtype=torch.float64)
    torch.testing.assert_close(probs, wanted.softmax(-1), atol=1e-4, rtol=1e-3)


def test_answers_do_not_depend_on_the_adapter(folder: Path, teacher: OmniTeacher) -> None:
    media = _media()
    untuned = OmniDescriber(_teacher(folder), SETTINGS).answers(*media)
    assert OmniDescriber(teacher, SETTINGS).answers(*media) == untuned
    with teacher.thinker.disable_adapter():
        off = _library_tokens(teacher, media)
    assert _library_tokens(teacher, media) != off, "the adapter is on again, and would have changed the words"


def test_a_window_is_answered_alike_alone_in_company_and_again(folder: Path) -> None:
    pictures, sounds = _media(windows=3)
    teacher = _teacher(folder, tuned_by=0.3)
    teacher.thinker.gradient_checkpointing_enable()
    teacher.train()  # as between two steps of tuning: dropout, and no cache
    describer = OmniDescriber(teacher, SETTINGS)
    together = describer.answers(pictures, sounds)
    assert describer.answers(pictures, sounds) == together
    for i, answer in enumerate(together):
        (alone,) = describer.answers(pictures[i : i + 1], sounds[i : i + 1])
        assert alone.text == answer.text
        np.testing.assert_allclose(alone.emotion_probs, answer.emotion_probs, atol=1e-4)


def test_a_description_ends_with_its_first_sentence(teacher: OmniTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    describer, script = OmniDescriber(teacher, SETTINGS), ["She nods. And t", "He is"]
    steps = iter(range(100))

    def scripted(hidden: Tensor) -> Tensor:
        step, logits = next(steps), torch.zeros(2, len(teacher.processor.tokenizer))
        for row, text in enumerate(script):
            ids = describer._ids(text + "<|im_end|>")
            logits[row, ids[step] if step < len(ids) else 0] = 1
        return logits

    with torch.no_grad():
        cache, at = describer._media(teacher.pack(*_media()))
        monkeypatch.setattr(describer, "_logits", scripted)
        rows = describer._greedy(cache, at)
    assert [teacher.processor.tokenizer.decode(row) for row in rows] == ["She nods. ", "He is<|im_end|>"]
    assert next(steps) == len("She nods. ")


def test_a_merged_teacher_is_refused_with_what_to_give_instead(folder: Path) -> None:
    merged = _teacher(folder)
    merged.thinker = merged.thinker.merge_and_unload()
    with pytest.raises(ValueError, match=r"cannot be switched off; give the folder that python -m teacher\.tune wrote"):
        OmniDescriber(merged, SETTINGS)


def test_every_beginning_of_a_word_knows_what_may_follow() -> None:
    words = [[1, 2, 9], [1, 3, 9], [4, 9]]
    assert beginnings(words) == {(): [1, 4], (1,): [2, 3], (1, 2): [9], (1, 3): [9], (4,): [9]}


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_says_the_same(folder: Path) -> None:
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_its_describer_says_how_to_get_it() -> None:
    with pytest.raises(ValueError, match="uv sync --extra vllm"):
        VllmDescriber("base", WINDOW, SETTINGS)


# ---- sentences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "kept", "over"),
    [
        ("A man nods. He smiles.", "A man nods.", True),
        ("A man nods. ", "A man nods.", True),
        ("A man nods.", "A man nods.", False),  # more digits or a closing quotation mark may follow
        ("  A man\n\tnods\x07 twice", "A man nods twice", False),
        ("Dr. Lee counts 3.5 apples, e.g. red ones! Then", "Dr. Lee counts 3.5 apples, e.g. red ones!", True),
        ('She says "no." Then she leaves.', 'She says "no."', True),
        ("他在点头。他笑", "他在点头。", True),
        ("one line\u2028another", "one line another", False),
        ("", "", False),
    ],
)
def test_what_was_said_becomes_one_line_of_one_sentence(said: str, kept: str, over: bool) -> None:
    assert one_sentence(said) == kept
    assert one_sentence(kept) == kept
    assert is_over(said) == over


# ---- sessions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_frames", [7, 60, 61, 150, 241])
@pytest.mark.parametrize("hop", [None, 24, 60])
def test_the_events_of_a_session_cover_all_of_its_frames_in_order(n_frames: int, hop: int | None) -> None:
    settings = DescribeConfig(batch=2, hop_frames=hop)
    events = describe_session(Counting(), _speaker(n_frames), n_frames, WINDOW, settings)
    starts = [e.start_frame for e in events]
    assert starts == sorted(set(starts))
    assert all(covering(events, t) for t in range(n_frames))
    assert not covering(events, n_frames)
    assert all(e.end_frame - e.start_frame <= WINDOW.frames for e in events)


def test_a_session_described_by_the_tiny_model_is_a_valid_store(teacher: OmniTeacher, tmp_path: Path) -> None:
    events = describe_session(OmniDescriber(teacher, SETTINGS), _speaker(150), 150, WINDOW, SETTINGS)
    store = EventStore.create(tmp_path, asked=asked("tiny", "h", WINDOW, SETTINGS), emotions=SETTINGS.emotions, run={})
    store.write("s01", events)
    assert store.read("s01") == events
    assert [e.end_frame for e in events] == [60, 120, 150]


def _describe_all(root: Path, describer: Counting) -> None:
    """As the labeller does: what is there is kept."""
    store = EventStore.create(root, asked=asked("m", "h", WINDOW, SETTINGS), emotions=SETTINGS.emotions, run={})
    for seed, session in enumerate(("s01", "s02", "s03")):
        if session not in store:
            store.write(session, describe_session(describer, _speaker(200, seed), 200, WINDOW, SETTINGS))


def test_describing_after_a_kill_gives_the_same_bytes(tmp_path: Path) -> None:
    _describe_all(tmp_path / "straight", Counting())
    with pytest.raises(KeyboardInterrupt):
        _describe_all(tmp_path / "killed", Counting(lives=6))
    again = Counting()
    _describe_all(tmp_path / "killed", again)
    assert again.asked == 8, "one session of three was there, four windows each"
    straight, killed = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "events").iterdir()} for n in ("straight", "killed")
    )
    assert straight == killed


# ---- settings ----------------------------------------------------------------------------------------------


def test_what_changes_the_words_changes_the_contract_and_nothing_else_does() -> None:
    base = asked("m", "h", WINDOW, SETTINGS)
    assert asked("m", "h", WINDOW, DescribeConfig(max_new_tokens=12, batch=9, hop_frames=60)) == base
    for other in (
        asked("n", "h", WINDOW, SETTINGS),
        asked("m", "i", WINDOW, SETTINGS),
        asked("m", "h", WindowSpec(frames=90, video_fps=6, size_px=56), SETTINGS),
        asked("m", "h", WINDOW, DescribeConfig(max_new_tokens=13)),
        asked("m", "h", WINDOW, DescribeConfig(max_new_tokens=12, hop_frames=24)),
        asked("m", "h", WINDOW, DescribeConfig(max_new_tokens=12, emotions=("glad", "sad"))),
    ):
        assert other != base


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_new_tokens": 0}, "at least 1, got 0"),
        ({"batch": 0}, "at least 1"),
        ({"hop_frames": 0}, "hop_frames"),
        ({"emotions": ("sad",)}, "two different words"),
        ({"emotions": ("sad", "glad", "sad")}, "two different words"),
    ],
)
def test_settings_that_leave_nothing_to_ask_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DescribeConfig(**changes)


# ---- vLLM, in a process of its own -------------------------------------------------------------------------


def _save_base(core: Any, processor: Any, folder: Path) -> None:
    """Write a thinker as the released models are written."""
    from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniConfig

    processor.save_pretrained(str(folder))
    Qwen2_5OmniConfig(thinker_config=core.config.to_dict(), enable_audio_output=False).save_pretrained(str(folder))
    weights = {f"thinker.{name}": tensor.clone() for name, tensor in core.state_dict().items()}
    save_file(weights, str(folder / "model.safetensors"))


def _compare_with_vllm(folder: Path) -> None:
    """Both describers on the same windows: the same words, the same probabilities."""
    import vllm_cpu_shim

    library = vllm_cpu_shim.install()
    assert library is not None
    teacher, media = _teacher(folder, tuned_by=0.3), _media(4, windows=3)
    wanted = OmniDescriber(teacher, SETTINGS).answers(*media)
    _save_base(teacher.thinker.unload(), teacher.processor, folder / "omni")
    limits = {"max_model_len": 1024, "max_num_batched_tokens": 2048, "max_num_seqs": 16}
    spec = WindowSpec(frames=120, video_fps=WINDOW.video_fps, size_px=WINDOW.size_px)
    vllm = VllmDescriber(str(folder / "omni"), spec, SETTINGS, enforce_eager=True, dtype="float32", **limits)
    for mine, theirs in zip(wanted, vllm.answers(*media), strict=True):
        assert mine.text == theirs.text
        np.testing.assert_allclose(mine.emotion_probs, theirs.emotion_probs, atol=1e-5)


if __name__ == "__main__":
    _compare_with_vllm(Path(sys.argv[1]))
