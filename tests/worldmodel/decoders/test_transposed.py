"""The rearranged transposed convolutions against PyTorch's own: outputs and every gradient."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from worldmodel.decoders._transposed import conv_transpose, expand_point
from worldmodel.decoders.conv import ConvDecoder

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
DTYPES = list(TOLERANCE)


def near(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    """Equal up to a share of each tensor's norm."""
    for one, two in zip(ours, theirs, strict=True):
        assert one.shape == two.shape
        assert (one - two).norm() <= tolerance * two.norm(), (one - two).norm() / two.norm()


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view(output.shape)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), inputs)]


def channels_last(layer: nn.ConvTranspose2d, *, wanted: bool) -> nn.ConvTranspose2d:
    return layer.to(memory_format=torch.channels_last) if wanted else layer


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [1, 3, 12])
@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (3, 0), (4, 0), (4, 1), (5, 0), (5, 2), (6, 0), (6, 1)])
def test_conv_transpose(kernel: int, padding: int, outputs: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for last in (False, True):
        layer = channels_last(nn.ConvTranspose2d(5, outputs, kernel, stride=2, padding=padding), wanted=last).to(dtype)
        image = torch.randn(2, 5, 4, 6, dtype=dtype, requires_grad=True)
        inputs = [image, layer.weight, layer.bias]
        ours = gradients(conv_transpose(image, layer), inputs)
        near(ours, gradients(layer(image), inputs), TOLERANCE[dtype])


def test_partial_gradients() -> None:
    layer = nn.ConvTranspose2d(4, 3, 4, stride=2)
    layer.weight.requires_grad_(False)
    image = torch.randn(2, 4, 3, 3)
    near(gradients(conv_transpose(image, layer), [layer.bias]), gradients(layer(image), [layer.bias]), 1e-4)
    conv_transpose(image, layer).relu_().sum().backward()  # the output may be changed in place
    assert layer.weight.grad is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [2, 200])
def test_expand_point(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    start = nn.Linear(7, 20).to(dtype)
    layer = nn.ConvTranspose2d(20, 6, 5, stride=2).to(dtype, memory_format=torch.channels_last)
    latent = torch.randn(rows, 7, dtype=dtype, requires_grad=True)
    inputs = [latent, *start.parameters(), *layer.parameters()]
    ours = gradients(expand_point(latent, start, layer), inputs)
    near(ours, gradients(layer(start(latent)[:, :, None, None]), inputs), TOLERANCE[dtype])


def plain(decoder: ConvDecoder, latent: Tensor) -> Tensor:
    return decoder.layers(decoder.start(latent)[:, :, None, None])


@pytest.mark.parametrize("dtype", DTYPES)
def test_conv_decoder(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(latent_dim=9, pixels=(3, 64, 64), channels=(32, 16, 12, 8)).to(dtype)
    latent = torch.randn(6, 9, dtype=dtype, requires_grad=True)
    inputs = [latent, *decoder.parameters()]
    assert decoder.layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    near(gradients(decoder(latent), inputs), gradients(plain(decoder, latent), inputs), TOLERANCE[dtype])


def test_conv_decoder_names() -> None:
    decoder = ConvDecoder(latent_dim=9, pixels=(1, 64, 64), channels=(16, 8, 8, 8))
    layers = [f"layers.{k}.{name}" for k in (0, 2, 4, 6) for name in ("weight", "bias")]
    assert list(decoder.state_dict()) == ["start.weight", "start.bias", *layers]


def test_bf16_autocast() -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(latent_dim=9, pixels=(3, 64, 64), channels=(32, 16, 12, 8))
    latent = torch.randn(6, 9)
    with torch.autocast("cpu", torch.bfloat16):
        output = decoder(latent)
    output.float().square().mean().backward()
    assert output.dtype is torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in decoder.parameters())
    assert_close(output.float(), plain(decoder, latent), atol=0.02, rtol=0.05)
