"""States to estimate from."""

import pytest
import torch


@pytest.fixture(scope="module")
def cloud() -> torch.Tensor:
    return torch.randn(400, 12, generator=torch.Generator().manual_seed(5))
