"""Frames to patches and back: the order that the pattern says, in every dtype, and gradients that go the same way."""

import pytest
import torch
from einops import rearrange

from worldmodel.patches import from_patches, to_patches

PATTERN = "R c (i p) (j q) -> R i j (c p q)"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("c", "size"), [(3, 4), (1, 4), (9, 4), (3, 2), (3, 8), (2, 1)])
def test_pixels_go_where_the_pattern_says(dtype: torch.dtype, c: int, size: int) -> None:
    frames = (torch.arange(2 * c * 16 * 24) % 251).view(2, c, 16, 24).to(dtype)
    patches = to_patches(frames, size=size)
    assert patches.dtype == dtype and patches.equal(rearrange(frames, PATTERN, p=size, q=size))
    assert from_patches(patches, size=size).equal(frames)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_go_back_the_same_way(layout: torch.memory_format) -> None:
    frames = torch.randn(2, 3, 8, 12, dtype=torch.float32).contiguous(memory_format=layout).requires_grad_()
    weights = torch.randn(2, 2, 3, 48)
    (gradient,) = torch.autograd.grad((to_patches(frames, size=4) * weights).sum(), frames)
    assert gradient.equal(from_patches(weights, size=4))
    patches = torch.randn(2, 2, 3, 48, requires_grad=True)
    (gradient,) = torch.autograd.grad((from_patches(patches, size=4) * frames.detach()).sum(), patches)
    assert gradient.equal(to_patches(frames.detach(), size=4))


def test_programs_for_other_runtimes_have_plain_operations() -> None:
    class Module(torch.nn.Module):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return from_patches(to_patches(frames, size=4) * 2, size=4)

    frames = torch.randn(2, 3, 8, 8)
    program = torch.export.export(Module(), (frames,))
    assert program.module()(frames).equal(2 * frames)
    assert not any("view.dtype" in str(node.target) for node in program.graph.nodes)
