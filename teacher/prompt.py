"""The task that a window is read with, as text: what the model is asked, and the turn around the media.

Apart from the code that runs the model, so that the cost of a plan can be counted without it.
"""

from pathlib import Path

from dyad.action_units import SEED17

PROMPT = Path(__file__).parent / "prompt.txt"


def prompt_text(template: Path = PROMPT) -> str:
    """The task prompt: a template file with the units filled in. Raises ValueError where it has no {units}."""
    text = template.read_text(encoding="utf8")
    if "{units}" not in text:
        raise ValueError(f"{template}: a prompt wants {{units}} where the action units shall stand; add it")
    return text.replace("{units}", ", ".join(SEED17.units)).strip()


def prompt_with_media(prompt: str) -> str:
    """The user's turn: task first, then the media."""
    return f"<|im_start|>user\n{prompt}<|vision_bos|><|VIDEO|><|vision_eos|><|im_end|>\n"


def around_media(prompt: str) -> tuple[str, str]:
    """The turn before and after the media tokens; where sound is told among pictures, it has marks of its own."""
    before, after = prompt_with_media(prompt).split("<|VIDEO|>")
    return f"{before}<|audio_bos|>", f"<|audio_eos|>{after}"
