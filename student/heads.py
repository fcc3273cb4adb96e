"""From the trunk to action units: every horizon and both read-outs in one product.

Shapes: N = batch x frames, D width, H horizons, A units; the last axis is (probability, activation) in log-odds.
"""

import torch
from torch import Tensor, nn

from student.spec import StudentSpec


class Heads(nn.Module):
    """[N, D] → [N, H, A, 2]. One weight row per horizon, unit and read-out: horizons need heads of their own."""

    def __init__(self, spec: StudentSpec) -> None:
        super().__init__()
        self.shape = (len(spec.horizons), len(spec.au_names), 2)
        self.norm = nn.LayerNorm(spec.d_model)
        self.out = nn.Linear(spec.d_model, self.shape[0] * self.shape[1] * 2)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds [N, H, A, 2]."""
        return self.out(self.norm(x)).reshape(-1, *self.shape)

    @torch.no_grad()
    def start_at(self, prob_mean: Tensor, act_rate: Tensor) -> None:
        """Set the biases to the log-odds of the base rates [A], so that training starts at the mean predictor."""
        rates = torch.stack([prob_mean, act_rate], dim=-1).clamp(1e-3, 1 - 1e-3)
        self.out.bias.copy_(torch.logit(rates).expand(self.shape).flatten())
