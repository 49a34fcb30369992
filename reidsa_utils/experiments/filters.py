"""How alike the filters of a layer are: what the paper's claim of regularization comes down to."""

import torch
from torch import Tensor


def filter_redundancy(f: Tensor) -> tuple[float, float]:
    """Measure how alike the filters of a layer answer.

    f: (B, C, H, W). Filters whose answer never changes have no correlation and count as none.
    Returns the mean absolute correlation of two filters, and the effective share of the C filters.
    The effective number of filters is exp of the entropy of the eigenvalues of the correlation
    matrix: C for unrelated filters, 1 if all answer alike; at most B * H * W.
    """
    answers = f.double().transpose(0, 1).flatten(1)  # (C, BHW)
    answers = answers[answers.std(dim=1) > 1e-9]
    if len(answers) < 2:
        return float("nan"), len(answers) / f.shape[1]
    r = torch.corrcoef(answers)  # (C, C) without the dead
    off_diagonal = ~torch.eye(len(r), dtype=torch.bool)
    correlation = r[off_diagonal].abs().mean().item()
    shares = torch.linalg.eigvalsh(r).clamp(min=0) / len(r)
    effective = torch.exp(torch.special.entr(shares).sum()).item()
    return correlation, effective / f.shape[1]
