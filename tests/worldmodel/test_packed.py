"""A product equals the layer that it stands for, by the packed way and by the plain one."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel import _packed as packed
from worldmodel._packed import PACKED_ROWS, Product, in_place

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(params=["packed", "plain"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(packed, "_linear", None)
    elif packed._linear is None:
        pytest.skip("this torch has no packed products")


def parts(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((rows, 23), (17, 23), (17,))
    x, weight, bias = (torch.randn(size, generator=generator) for size in sizes)
    return x, weight / 5, bias


@pytest.mark.parametrize("rows", [1, PACKED_ROWS - 1, PACKED_ROWS + 1])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("activation", "function"), [("none", lambda y: y), ("relu", F.relu), ("swish", F.silu)])
def test_weights_bias_and_activation(rows, dtype, activation, function):
    x, weight, bias = parts(rows)
    expected = function(F.linear(x, weight, bias))
    found = Product(weight, bias, dtype, activation)(x.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("rows", [1, PACKED_ROWS + 1])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_adds_to_another_product(rows, dtype):
    x, weight, bias = parts(rows)
    other = torch.randn(rows, 17, generator=torch.Generator().manual_seed(1))
    found = Product(weight, bias, dtype).added(x.to(dtype), other.to(dtype, copy=True))
    torch.testing.assert_close(found.float(), other + F.linear(x, weight, bias), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("rows", [1, PACKED_ROWS + 1])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_is_written_into_wider_rows(rows, dtype, activation):
    x, weight, bias = parts(rows)
    for offset in (bias, None):
        wide, product = torch.full((rows, 21), 7.0).to(dtype), Product(weight, offset, dtype, activation)
        product.into(x.to(dtype), wide[:, 2:19])
        torch.testing.assert_close(wide[:, 2:19], product(x.to(dtype)))
        assert (wide[:, :2] == 7).all() and (wide[:, 19:] == 7).all()


def test_weights_may_be_part_of_others():
    x, weight, _ = parts(PACKED_ROWS)
    found = Product(weight[3:9, 2:12], None, torch.float32)(x[:, 2:12])
    torch.testing.assert_close(found, x[:, 2:12] @ weight[3:9, 2:12].t())


def test_layers_of_a_net_and_their_activations():
    torch.manual_seed(0)
    hidden = [nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7, bias=False), nn.LayerNorm(7), nn.SiLU(), nn.Linear(7, 3)]
    net, x = nn.Sequential(*hidden, nn.SiLU()), torch.randn(300, 5)
    with torch.no_grad():
        expected, found = net(x), x
        for layer in in_place(net, torch.float32):
            found = layer(found)
    torch.testing.assert_close(found, expected)
