"""Encoders of images: the same function as their plain layers."""

import pytest
import torch
from einops import rearrange
from torch.nn import functional
from torch.testing import assert_close

from worldmodel.encoders.conv import ConvEncoder
from worldmodel.encoders.patch_merging import PatchMergingEncoder


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("side", "padding"), [(64, 0), (64, 1), (48, 0)])
def test_conv_encoder(side: int, padding: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(pixels=(3, side, side), channels=(8, 12, 16, 20), padding=padding).to(dtype)
    frames = torch.randn(2, 3, 3, side, side, dtype=dtype, requires_grad=True)
    inputs = [frames, *encoder.parameters()]
    embed, plain = encoder(frames), encoder.layers(frames.flatten(0, 1)).flatten(1).unflatten(0, (2, 3))
    assert embed.shape == (2, 3, encoder.embed_dim)
    weights = torch.linspace(-1, 1, embed.numel(), dtype=dtype).view(embed.shape)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), inputs) for x in (embed, plain))
    for one, two in zip((embed, *ours), (plain, *theirs), strict=True):
        assert (one - two).norm() <= tolerance * two.norm()


def test_conv_encoder_bf16() -> None:
    torch.manual_seed(0)
    encoder, frames = ConvEncoder(pixels=(3, 64, 64), channels=(8, 12, 16, 20)), torch.randn(1, 4, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        embed = encoder(frames)
    assert embed.dtype is torch.bfloat16
    assert_close(embed.float(), encoder(frames), atol=0.02, rtol=0.05)


def test_conv_encoder_names() -> None:
    encoder = ConvEncoder(pixels=(3, 64, 64))
    assert list(encoder.state_dict()) == [f"layers.{k}.{name}" for k in (0, 2, 4, 6) for name in ("weight", "bias")]


def test_conv_encoder_refuses_small_frames() -> None:
    with pytest.raises(ValueError, match="large enough"):
        ConvEncoder(pixels=(3, 16, 16))


def test_patch_merging_is_convolutions_whose_windows_do_not_overlap() -> None:
    encoder = PatchMergingEncoder(pixels=(3, 32, 16), channels=(5, 7, 9))
    image = torch.rand(6, 3, 32, 16)
    orders = ["o (c p q) -> o c p q", "o (p q c) -> o c p q", "o (p q c) -> o c p q"]
    seen = image
    for layer, side, order in zip([encoder.stem, *encoder.layers], (4, 2, 2), orders, strict=True):
        weight = rearrange(layer.weight, order, p=side, q=side)
        seen = functional.silu(functional.conv2d(seen, weight, layer.bias, stride=side))
    expected = rearrange(seen, "(b t) c h w -> b t (h w c)", b=2)
    got = encoder(image.view(2, 3, 3, 32, 16))
    assert got.shape == (2, 3, encoder.embed_dim) == (2, 3, 9 * 2 * 1)
    assert torch.allclose(got, expected, atol=1e-6)


def test_patch_merging_refuses_frames_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiples of 16, got 24x16"):
        PatchMergingEncoder(pixels=(3, 24, 16), channels=(4, 4, 4))
