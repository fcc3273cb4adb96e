"""Can a small network read every action unit off the drawn face of someone it has never seen?

    uv run python -m benchmarks.au_visibility

Faces of 160 identities with random, independent units are drawn, compressed to the crop that the student sees, and a
five-layer convolutional network learns to recover all 17 from 120 of them; printed is Pearson's r on the other 40.
"""

import json
import time
from pathlib import Path

import numpy as np

from dyad.action_units import SEED17
from dyad.provenance import run_card, write_json
from dyad.synthetic.face import SIZE_PX, FaceArtist
from dyad.synthetic.identity import Identity
from student.frontend import crop_face

IDENTITIES, HELD_OUT, EACH, CROP_PX, STEPS = 160, 40, 60, 64, 700


def draw(identity: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops [EACH, 64, 64, 3] and units [EACH, 17] of one identity."""
    rng = np.random.default_rng([17, identity])
    artist = FaceArtist(Identity.draw(rng, SIZE_PX), rng)
    units = (rng.random((EACH, 17)) < 0.3) * rng.uniform(0.3, 1, (EACH, 17))
    pose = rng.normal(0, (0.1, 0.06, 0.04, 0.3, 0.2, 0.0), (EACH, 6))
    x, y = (p * SIZE_PX for p in artist.who.place)
    half = artist.who.zoom * SIZE_PX * 0.95
    crops = []
    for i in range(EACH):
        jitter = rng.normal(0, 3, 2)
        box = (x - half + jitter[0], y - half + jitter[1], x + half + jitter[0], y + half + jitter[1])
        picture = artist.draw(units[i].astype(np.float32), pose[i].astype(np.float32), i)
        crops.append(crop_face(picture, box, CROP_PX))
    return np.stack(crops), units.astype(np.float32)


def main() -> None:
    """Draw, train, print, write the results file."""
    import torch
    from torch import nn

    started = time.monotonic()
    torch.manual_seed(0)
    parts = [draw(i) for i in range(IDENTITIES)]
    x = torch.from_numpy(np.concatenate([p[0] for p in parts])).permute(0, 3, 1, 2)
    y = torch.from_numpy(np.concatenate([p[1] for p in parts]))
    cut = (IDENTITIES - HELD_OUT) * EACH
    layers: list[nn.Module] = []
    for a, b in ((3, 24), (24, 48), (48, 64), (64, 96)):
        layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(96 * 16, 128), nn.ReLU(), nn.Linear(128, 17))
    steps = torch.optim.lr_scheduler.OneCycleLR(
        opt := torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.02), 3e-3, total_steps=STEPS
    )
    for _ in range(STEPS):
        pick = torch.randint(0, cut, (128,))
        batch = (x[pick].float() - 128) / 128 * torch.empty(128, 1, 1, 1).uniform_(0.8, 1.2)
        loss = nn.functional.mse_loss(net(batch), y[pick])
        opt.zero_grad()
        loss.backward()
        opt.step()
        steps.step()
    net.eval()
    with torch.no_grad():
        guess = torch.cat([net((b.float() - 128) / 128) for b in x[cut:].split(256)]).numpy()
    truth = y[cut:].numpy()
    score = {u: round(float(np.corrcoef(guess[:, a], truth[:, a])[0, 1]), 3) for a, u in enumerate(SEED17.units)}
    for unit, r in score.items():
        print(f"{unit:5s} {r:5.2f}  {'#' * int(40 * max(r, 0))}")
    result = {"pearson": score, "least": min(score.values()), "seconds": round(time.monotonic() - started, 1)}
    write_json(
        Path(__file__).parent / "results" / "au_visibility.json",
        run_card(command="benchmarks/au_visibility.py", config={"identities": IDENTITIES}) | result,
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
