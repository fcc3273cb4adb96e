"""The same two questions through vLLM, for many sessions: the base model itself, since no adapter is wanted.

Not yet run on a GPU; on a CPU, through the tests' shim, a tiny model gives the same words and likelihoods as
`OmniDescriber`. Media go in as the merged teacher's do (`teacher.backends.vllm_model`: processor, positions and
merging of transformers), the language head stays. Descriptions are asked first; the emotions' requests begin with the
same tokens and media, so that vLLM's prefix cache spares them the media. One request per beginning of a word scores
all that may follow it, and a word's log-probability is the sum along its way: exact, however the word is cut in tokens.
"""

# pyright: reportMissingImports=false
import importlib.util
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher.backends.vllm import SAMPLE_RATE, SPEAKER, register
from teacher.describe import AFTER, BEFORE, STOPS, Answer, DescribeConfig, one_sentence, questions
from teacher.window_spec import WindowSpec

MEDIA = "<|vision_bos|><|VIDEO|><|vision_eos|>"
Beginnings = dict[tuple[int, ...], list[int]]


def beginnings(words: list[list[int]]) -> Beginnings:
    """Every beginning of the words, the empty one too → tokens that follow it in one of them."""
    found: dict[tuple[int, ...], set[int]] = {}
    for word in words:
        for i, token in enumerate(word):
            found.setdefault(tuple(word[:i]), set()).add(token)
    return {begin: sorted(after) for begin, after in found.items()}


class VllmDescriber:
    """A base model through vLLM; the interface of `teacher.describe.Describer`."""

    def __init__(self, model: str, spec: WindowSpec, settings: DescribeConfig, **options: Any) -> None:
        """Start the engine on the base `model` (a folder or a hub id); `options` go to vLLM's `LLM`.

        Raises ValueError where vLLM is missing.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "vLLM is not installed; run uv sync --extra vllm, or describe with --describe-with transformers"
            )
        from vllm import LLM

        register()
        self.spec, self.settings, self._names = spec, settings, itertools.count()
        self.engine: Any = LLM(
            model=model,
            runner="generate",
            hf_overrides={"architectures": [SPEAKER]},
            enable_prefix_caching=True,
            limit_mm_per_prompt={
                "image": 0,
                "audio": {"count": 1, "length": spec.samples},
                "video": {"count": 1, "num_frames": spec.pictures, "width": spec.size_px, "height": spec.size_px},
            },
            **options,
        )
        self._tokenizer = self.engine.get_tokenizer()
        self._stops: list[int] = self._tokenizer.convert_tokens_to_ids(list(STOPS))
        self._prompts = [self._tokenizer(BEFORE + MEDIA + q + AFTER).input_ids for q in questions(settings)]
        self._words = [self._tokenizer(word + STOPS[0]).input_ids for word in settings.emotions]

    def answers(self, pictures: NDArray[np.uint8], sounds: NDArray[np.float32]) -> list[Answer]:
        """See `Describer`."""
        windows = [self._window(*window) for window in zip(pictures, sounds, strict=True)]
        texts = self._texts(windows)
        scores = np.array([self._likelihoods(window) for window in windows])
        probs = np.exp(scores - scores.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        return [Answer(text, tuple(row)) for text, row in zip(texts, probs.tolist(), strict=True)]

    def _window(self, pictures: NDArray[np.uint8], sound: NDArray[np.float32]) -> dict[str, Any]:
        """A request but for its tokens; the names tell vLLM that its media are the same each time."""
        name = f"described{next(self._names)}"
        return {
            "multi_modal_data": {"video": [pictures], "audio": [(sound, SAMPLE_RATE)]},
            "multi_modal_uuids": {"video": [f"{name} pictures"], "audio": [f"{name} sound"]},
            "mm_processor_kwargs": {"use_audio_in_video": True, "fps": self.spec.video_fps},
        }

    def _texts(self, windows: list[dict[str, Any]]) -> list[str]:
        """Greedy answers to the first question."""
        from vllm import SamplingParams

        params = SamplingParams(
            temperature=0, max_tokens=self.settings.max_new_tokens, stop_token_ids=self._stops, detokenize=False
        )
        requests = [window | {"prompt_token_ids": self._prompts[0]} for window in windows]
        said = [out.outputs[0].token_ids for out in self.engine.generate(requests, params, use_tqdm=False)]
        return [one_sentence(self._tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in said]

    def _likelihoods(self, window: dict[str, Any]) -> list[float]:
        """Log-probability of each emotion's word as the whole answer to the second question."""
        from vllm import SamplingParams

        after = beginnings(self._words)
        requests = [window | {"prompt_token_ids": [*self._prompts[1], *begin]} for begin in after]
        params = [SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=tokens) for tokens in after.values()]
        outputs = self.engine.generate(requests, params, use_tqdm=False)
        scores = {begin: out.outputs[0].logprobs[0] for begin, out in zip(after, outputs, strict=True)}
        return [
            float(sum(scores[tuple(word[:i])][token].logprob for i, token in enumerate(word))) for word in self._words
        ]
