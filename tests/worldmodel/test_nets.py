"""The perceptron that all networks share."""

import pytest
import torch

from worldmodel.nets import mlp


@pytest.mark.parametrize("layers", [1, 2])
def test_inputs_of_one_direction_and_different_size_are_told_apart(layers: int) -> None:
    net, x = mlp(5, 16, layers, 3), torch.randn(20, 5)
    assert ((net(x) - net(2 * x)).abs().amax(-1) > 1e-3).all()
