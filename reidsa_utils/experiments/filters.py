"""How alike the filters of a layer are, as a test of the paper's claim of regularization."""

import torch
from torch import Tensor


def filter_redundancy(f: Tensor) -> tuple[float, float]:
    """Measure how alike the outputs of the filters of a layer are.

    f: (B, C, H, W), the outputs of C filters. A filter with a constant output has no correlation;
    it is left out of both numbers.
    Returns the mean absolute correlation of two filters, and the effective number of filters as a
    share of C. The effective number is exp of the entropy of the eigenvalues of the correlation
    matrix: C for uncorrelated filters, 1 if all are fully correlated; at most B * H * W.
    """
    answers = f.double().transpose(0, 1).flatten(1)  # (C, BHW)
    answers = answers[answers.std(dim=1) > 1e-9]
    if len(answers) < 2:
        return float("nan"), len(answers) / f.shape[1]
    r = torch.corrcoef(answers)  # (C, C) without the constant filters
    off_diagonal = ~torch.eye(len(r), dtype=torch.bool)
    correlation = r[off_diagonal].abs().mean().item()
    shares = torch.linalg.eigvalsh(r).clamp(min=0) / len(r)
    effective = torch.exp(torch.special.entr(shares).sum()).item()
    return correlation, effective / f.shape[1]
