"""What tests of states compare by, and the text whose states they are."""

import torch
from torch import Tensor

from extraction.states.extracting import States

TEXT = "the cat saw a dog, the fox and the horse. a dog ran, a cow did not. the bear sat with a red fish and a bird."
# float32 sums over at most 32 features and a few thousand rows, states of order 1: errors of order 1e-6.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def everything(states: States) -> Tensor:
    """All macro states leaving, (L, T, N, k)."""
    blocks, positions = range(states.blocks), range(1, states.positions + 1)
    return torch.stack([torch.stack([states.leaving(b, t) for t in positions]) for b in blocks])
