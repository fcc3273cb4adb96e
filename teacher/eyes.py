"""Training only: read the speaker's own units off the media tokens.

What the listener does is a faint echo of what the speaker's face shows; the loss of the listener's units alone hardly
teaches a random model to see (docs/log.md). Where the speaker's units are known, reading them is a second task for the
same token views: the adapters learn to see first. Nothing of it is shipped.
Shapes: B windows, T frames, A units.
"""

import torch
from torch import Tensor, nn

from teacher.heads import over_time
from teacher.qwen_omni import MediaBatch, OmniTeacher


class SeeingTeacher(nn.Module):
    """The teacher and a linear map from its picture tokens to the speaker's units."""

    def __init__(self, teacher: OmniTeacher, rates: Tensor) -> None:
        """`rates` [A] are the speaker's mean units, where the map begins."""
        super().__init__()
        self.teacher = teacher
        layout = teacher.layout(teacher.spec.frames, torch.device("cpu"))
        tokens = len(layout.video_rows) // layout.grids
        self.speaker = nn.Linear(tokens * teacher.read_out.tokens.video.out_features, len(rates))
        with torch.no_grad():
            self.speaker.weight.mul_(0.1)
            self.speaker.bias.copy_(torch.logit(rates.clamp(1e-3, 1 - 1e-3)))

    def forward(self, batch: MediaBatch) -> tuple[Tensor, Tensor]:
        """The listener's log-odds [B, T, H, A, 2], and the speaker's [B, T, A]."""
        layout = self.teacher.layout(batch.frames, batch.features.device)
        features = self.teacher.token_features(batch)
        seen = over_time(features[:, layout.video_rows].reshape(len(features), layout.grids, -1))
        speaker = torch.einsum("tg,bga->bta", layout.video_weights, self.speaker(seen))
        listener = self.teacher.read_out(features, layout)
        return listener.clone(), speaker.clone()  # FSDP hooks outputs, and wants them to be no views
