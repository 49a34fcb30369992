"""Two training steps in float64, as numbers: what a network computes, on every processor.

python tests/two_steps.py      prints the numbers of tests/two_steps.json; that file changes only with a new meaning of a run
"""

import json

import torch
from torch import nn

CASES = {"thin": ("l1", "softmax"), "mobilenet_v2": ("l1",)}  # backbone -> attention forms


def two_steps(backbone: str, form: str) -> dict:
    """Losses before, between and after two steps of SGD, gradient norms of the second, sums of the retrieval vectors after it.

    All of Fig. 3 takes part (b_p_ds_sa12), from the seeded start, on images that need no file. Dropout is off: its draws
    belong to torch, not to the network.
    """
    from reidsa_utils.model import ReIDNet, reid_loss  # here: the planted faults change that module

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model = ReIDNet(5, "b_p_ds_sa12", form, backbone=backbone, dropout=0.0).train()
        ramp = torch.linspace(0, 1, 8 * 3 * 96 * 32, dtype=torch.float64).view(8, 3, 96, 32)
        images, target = (
            torch.sin(997 * ramp) + torch.sin(31 * ramp * (1 + ramp)),
            torch.arange(8) % 5,
        )
        optimizer = torch.optim.SGD(
            model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        losses = []
        for _ in range(2):
            loss = reid_loss(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        norms = {
            name: nn.utils.get_total_norm(
                [p.grad for p in getattr(model, name).parameters()]
            ).item()
            for name in ("backbone", "reduce", "stages", "part")
        }
        losses.append(reid_loss(model(images), target).item())
        model.eval()
        with torch.no_grad():
            sums = {
                kind: vectors.abs().sum().item()
                for kind, vectors in model.embed_all(images).items()
            }
        return {"losses": losses, "gradient": norms, "vectors": sums}
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    from reidsa_utils.training import NUMERICS

    steps = {"numerics": NUMERICS}
    for backbone, forms in CASES.items():
        steps[backbone] = {form: two_steps(backbone, form) for form in forms}
    print(json.dumps(steps, indent=1))
