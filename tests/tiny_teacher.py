"""A tiny teacher for tests: the real classes, never tuned, but lively: its adapters and heads are not at rest."""

from pathlib import Path

import torch

from dyad.action_units import SEED17
from teacher import adapter
from teacher.qwen_omni import OmniTeacher, add_lora, load_base
from teacher.window_spec import WindowSpec

WINDOW = WindowSpec(frames=60, video_fps=5, size_px=56)
READ_OUT = {"units": len(SEED17.units), "horizons": 9, "token_width": 8, "width": 16, "span": 31, "dropout": 0.1}


def write(folder: Path, window: WindowSpec = WINDOW, seed: int = 0, prompt: str = "Watch, listen, answer.") -> Path:
    """Write a teacher folder; returns it."""
    thinker, processor, source = load_base("tiny", folder)
    torch.manual_seed(seed)
    thinker = add_lora(thinker, rank=2, alpha=4, dropout=0.0, towers=False)
    teacher = OmniTeacher(thinker, processor, window, prompt, READ_OUT)
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
        teacher.read_out.second.normal_(0, 0.3)
    adapter.save(folder, teacher, adapter.contract_of(teacher, model="tiny", source=source, read_out=READ_OUT), {})
    return folder
