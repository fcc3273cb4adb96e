"""What the speaker of a window does, in a sentence, and how they feel, in the base model's own words.

The model is asked in its chat form with the LoRA adapter switched off: the adapter was tuned for action units, and
language is none of its business. Both questions follow the media, so one pass over the media serves both: its keys
and values are kept. The description is greedy decoding. The emotion is not free text but the likelihood of each word
of a fixed list, its end included, among all of the list: always one of them, always with probabilities. These are
the model's beliefs, not calibrated against people's.
Shapes: B windows, L tokens, E emotions, V vocabulary.  Source: seeds 002 (emotions) and 004 (descriptions in time).
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dyad.events import EMOTIONS, Event
from dyad.provenance import sha256_bytes
from teacher.qwen_omni import MediaBatch, OmniTeacher
from teacher.window_spec import WindowSpec
from teacher.windows import SpeakerMedia, cut, starts

PROMPTS = tuple(Path(__file__).parent / name for name in ("prompt_describe.txt", "prompt_emotion.txt"))
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
STOPS = ("<|im_end|>", "<|endoftext|>")
_SENTENCE = re.compile(r"(?<=[a-z]{2})[.!?][\"'”’)]*(?=\s|$)|[。！？][”’」』）]*")
"""A sentence's end; not that of "Dr.", "e.g." or "3.5"."""


@dataclass(frozen=True, kw_only=True)
class DescribeConfig:
    """How windows are asked about."""

    hop_frames: int | None = None
    """Frames between windows; a whole window unless given."""
    max_new_tokens: int = 64
    """Tokens of a description at most; it ends with its first sentence."""
    emotions: tuple[str, ...] = EMOTIONS
    """The words to choose from."""
    batch: int = 4
    """Windows at a time."""

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to ask."""
        for name in ("hop_frames", "max_new_tokens", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if len(set(self.emotions)) < max(len(self.emotions), 2):
            raise ValueError(f"emotions must be two different words or more, got {', '.join(self.emotions)}")


@dataclass(frozen=True)
class Answer:
    """What was said of one window."""

    text: str
    emotion_probs: tuple[float, ...]


class Describer(Protocol):
    """Who is asked: `OmniDescriber` here, or one of another engine."""

    def answers(self, pictures: NDArray[np.uint8], sounds: NDArray[np.float32]) -> list[Answer]:
        """Windows [B, pictures, h, w, 3] and [B, samples] → B answers."""
        ...


def questions(settings: DescribeConfig) -> tuple[str, str]:
    """What is asked after the media: for a description, and for an emotion."""
    describe, emotion = (p.read_text(encoding="utf8").strip() for p in PROMPTS)
    return describe, emotion.format(emotions=", ".join(settings.emotions))


def asked(model: str, base_hash: str, spec: WindowSpec, settings: DescribeConfig) -> dict[str, Any]:
    """All that events depend on besides the media, for `EventStore.create`; the adapter is not among it."""
    return {
        "model": model,
        "base_hash": base_hash,
        "prompts": sha256_bytes("\0".join((BEFORE, *questions(settings), AFTER)).encode())[:16],
        "window": asdict(spec),
        "hop_frames": settings.hop_frames or spec.frames,
        "max_new_tokens": settings.max_new_tokens,
    }


def describe_session(
    describer: Describer, speaker: SpeakerMedia, n_frames: int, spec: WindowSpec, settings: DescribeConfig
) -> list[Event]:
    """Events of a session in order; together they cover all of its `n_frames`."""
    at, events = starts(n_frames, spec, settings.hop_frames or spec.frames), []
    for first in range(0, len(at), settings.batch):
        group = at[first : first + settings.batch]
        cuts = [cut(speaker, start, spec) for start in group]
        answers = describer.answers(np.stack([p for p, _ in cuts]), np.stack([s for _, s in cuts]))
        for start, answer in zip(group, answers, strict=True):
            events.append(_event(start, min(start + spec.frames, n_frames), answer, settings.emotions))
    return events


def _event(start: int, end: int, answer: Answer, emotions: tuple[str, ...]) -> Event:
    """Six decimals of a probability are more than enough, and make a file that is pleasant to read."""
    probs = {name: round(p, 6) for name, p in zip(emotions, answer.emotion_probs, strict=True)}
    return Event(start, end, answer.text, max(probs, key=lambda name: probs[name]), probs)


def one_sentence(text: str) -> str:
    """The first sentence of what a model said, on one line, without what cannot be printed."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    end = _SENTENCE.search(line)
    return line if end is None else line[: end.end()]


def is_over(text: str) -> bool:
    """Whether a sentence has ended and something has begun after it."""
    end = _SENTENCE.search(text.lstrip())
    return end is not None and end.end() < len(text.lstrip())


class OmniDescriber:
    """The thinker of an unmerged teacher, its adapter off."""

    def __init__(self, teacher: OmniTeacher, settings: DescribeConfig) -> None:
        """Raises ValueError where the adapter has been merged, and the base's language is lost."""
        from peft import PeftModel

        if not isinstance(teacher.thinker, PeftModel):
            raise ValueError(
                "describing wants the base model's language, but this teacher's adapter is merged into its weights and "
                "cannot be switched off; give the folder that python -m teacher.tune wrote"
            )
        self.teacher, self.settings, self._tokenizer = teacher, settings, teacher.processor.tokenizer
        self._stops = self._tokenizer.convert_tokens_to_ids(list(STOPS))
        self._before = self._ids(BEFORE)
        self._questions = [self._ids(question + AFTER) for question in questions(settings)]
        self._words = [self._ids(word + STOPS[0]) for word in settings.emotions]

    @torch.no_grad()
    def answers(self, pictures: NDArray[np.uint8], sounds: NDArray[np.float32]) -> list[Answer]:
        """See `Describer`."""
        self.teacher.eval()
        batch = self.teacher.pack(pictures, sounds).to(self.teacher.core.device)
        with self.teacher.thinker.disable_adapter():
            cache, at = self._media(batch)
            said = self._greedy(_copy(cache), at)
            probs = self._likelihoods(cache, at).softmax(-1).tolist()
        texts = [one_sentence(self._decode(row)) for row in said]
        return [Answer(text, tuple(row)) for text, row in zip(texts, probs, strict=True)]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text).input_ids

    def _rows(self, ids: list[int], count: int) -> Tensor:
        return torch.tensor([ids] * count, device=self.teacher.core.device)

    def _media(self, batch: MediaBatch) -> tuple[Any, int]:
        """Keys and values of system turn and media, and the position that follows them."""
        device, count, done = batch.features.device, len(batch.grids), len(self._before)
        layout = self.teacher.layout(batch.frames, device)
        block = slice(layout.prefix - 2, int(layout.media_at[-1]) + 3)  # with the tokens that open and close it
        embeds = torch.cat([self._embed(self._rows(self._before, count)), self.teacher.embeddings(batch)[:, block]], 1)
        media = self.teacher.positions(batch.frames, device)[..., block] - block.start + done
        positions = torch.cat([torch.arange(done, device=device).expand(3, 1, -1), media], dim=-1)
        return self._model(embeds, positions.expand(-1, count, -1)).past_key_values, int(media.max()) + 1

    def _greedy(self, cache: Any, at: int) -> list[list[int]]:
        """Most probable tokens after the first question, row by row up to a stop, a whole sentence or the limit."""
        rows: list[list[int]] = [[] for _ in range(_count(cache))]
        tokens = self._rows(self._questions[0], len(rows))
        for _ in range(self.settings.max_new_tokens):
            best = self._logits(self._read(cache, tokens, at)[:, -1]).argmax(-1)
            for row, token in zip(rows, best.tolist(), strict=True):
                if not self._ended(row):
                    row.append(token)
            if all(self._ended(row) for row in rows):
                break
            tokens, at = best[:, None], at + tokens.shape[1]
        return rows

    def _likelihoods(self, cache: Any, at: int) -> Tensor:
        """Log-probability [B, E] that the answer to the second question is each emotion's word and nothing more."""
        count, question = _count(cache), self._questions[1]
        first = self._logits(self._read(cache, self._rows(question, _count(cache)), at)[:, -1]).log_softmax(-1)
        longest = max(len(word) for word in self._words)
        padded = [word + [self._stops[0]] * (longest - len(word)) for word in self._words]
        words = torch.tensor(padded, device=first.device)
        real = torch.tensor([[i < len(word) for i in range(1, longest)] for word in self._words], device=first.device)
        hidden = self._read(_copy(cache, len(words)), words[:, :-1].repeat(count, 1), at + len(question))
        after = self._logits(hidden).log_softmax(-1).unflatten(0, (count, len(words)))
        rest = after.gather(-1, words[None, :, 1:, None].expand(count, -1, -1, -1))[..., 0]
        return first[:, words[:, 0]] + (rest * real).sum(-1)

    def _read(self, cache: Any, tokens: Tensor, at: int) -> Tensor:
        """Hidden states [B, L, C] of `tokens` [B, L], which stand from position `at` on and follow those in `cache`."""
        positions = torch.arange(at, at + tokens.shape[1], device=tokens.device).expand(3, len(tokens), -1)
        return self._model(self._embed(tokens), positions, cache).last_hidden_state

    def _model(self, embeds: Tensor, positions: Tensor, cache: Any = None) -> Any:
        return self.teacher.core.model(
            inputs_embeds=embeds, position_ids=positions, past_key_values=cache, use_cache=True
        )

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.teacher.core.get_input_embeddings()(tokens)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.teacher.core.lm_head(hidden).float()

    def _decode(self, row: list[int]) -> str:
        return self._tokenizer.decode(row, skip_special_tokens=True)

    def _ended(self, row: list[int]) -> bool:
        return bool(row) and (row[-1] in self._stops or is_over(self._decode(row)))


def _count(cache: Any) -> int:
    """Windows whose keys and values a cache holds."""
    return len(cache.layers[0].keys)


def _copy(cache: Any, times: int = 1) -> Any:
    """The same keys and values, each window's `times` times over."""
    from transformers import DynamicCache

    copy = DynamicCache()
    for i, layer in enumerate(cache.layers):
        copy.update(layer.keys.repeat_interleave(times, 0), layer.values.repeat_interleave(times, 0), i)
    return copy
