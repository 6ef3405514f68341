"""The filter's one-operation form against the plain loop that its equations describe."""

import pytest
import torch
from torch import Tensor

from worldmodel.dynamics.rssm_gaussian import GaussianRSSM

B, T, E, A, D, S = 4, 6, 7, 2, 16, 5
Window = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def in_the_weights_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's moments are float32 for autocast's sake, which would hide errors below 1e-7."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)


def rssm(dtype: torch.dtype = torch.float64) -> GaussianRSSM:
    """Small, with weights that tell gains, shifts and biases apart from ones and zeros."""
    model = GaussianRSSM(embed_dim=E, action_dim=A, deterministic=D, stochastic=S, hidden=11).to(dtype)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    return model


def window(dtype: torch.dtype = torch.float64) -> Window:
    """Embeddings, actions, flags that open episodes early, midway, late and never, and a carry."""
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[0, 0] = is_first[1, 3] = is_first[2, T - 1] = True
    streams = [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((B, T, E), (B, T, A), (B, D + S))]
    embed, action, carry = streams
    return embed, action, is_first, carry


def observed(model: GaussianRSSM, inputs: Window, *, sample: bool) -> tuple[Tensor, Tensor, Tensor]:
    belief = model.observe(*inputs, sample=sample)
    torch.testing.assert_close(belief.carry, belief.latent[:, -1], atol=0, rtol=0)
    return belief.latent, belief.statistics["posterior_mean"], belief.statistics["posterior_std"]


def both(model: GaussianRSSM, inputs: Window, *, sample: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
    """By the plain loop of the equations, and fused."""
    results = []
    for model.fused in (False, True):
        torch.manual_seed(1)
        results.append(observed(model, inputs, sample=sample))
    return results


@pytest.mark.parametrize("sample", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_filter_equals_the_plain_loop(dtype: torch.dtype, tolerance: float, sample: bool) -> None:
    oracle, result = both(rssm(dtype), window(dtype), sample=sample)
    for one, other in zip(result, oracle, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("read", ["all", "latent", "mean", "std", "last"])
def test_every_gradient_equals_the_plain_loops(read: str) -> None:
    model, inputs = rssm(), window()
    embed, action, _, carry = inputs
    leaves = {"embed": embed, "action": action, "carry": carry}
    leaves |= {name: w for name, w in model.named_parameters() if not name.startswith("prior")}
    gradients = []
    for latent, mean, std in both(model, inputs, sample=True):
        outputs = {"latent": latent, "mean": mean, "std": std, "last": latent[:, -1]}
        chosen = list(outputs.values()) if read == "all" else [outputs[read]]
        # a different weight for every entry, so that no two gradients can be swapped unnoticed
        loss = sum((x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x).cos()).sum() for x in chosen)
        gradients.append(torch.autograd.grad(loss, list(leaves.values())))
    for name, one, other in zip(leaves, gradients[1], gradients[0], strict=True):
        assert other.abs().sum() > 0, name
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_nothing_flows_across_a_reset() -> None:
    model, (embed, action, is_first, carry) = rssm(), window()
    is_first = torch.zeros_like(is_first)
    is_first[:, 3] = True
    latent = model.observe(embed, action, is_first, carry, sample=True).latent
    of_embed, of_carry = torch.autograd.grad(latent[:, 3:].square().sum(), [embed, carry])
    assert of_carry.abs().max() == 0 and of_embed[:, :3].abs().max() == 0
    assert of_embed[:, 3:].abs().sum(-1).min() > 0


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_acting_filters_as_learning_does(without: type) -> None:
    model, inputs = rssm(torch.float32), window(torch.float32)
    learning = observed(model, inputs, sample=False)
    with without():
        acting = observed(model, inputs, sample=False)
    for one, other in zip(acting, learning, strict=True):
        assert not one.requires_grad
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_without_samples_the_latents_are_the_means() -> None:
    latent, mean, _ = observed(rssm(), window(), sample=False)
    torch.testing.assert_close(latent[..., D:], mean, atol=0, rtol=0)


def test_low_precision_touches_only_the_products_before_the_recurrence() -> None:
    model, inputs = rssm(torch.float32), window(torch.float32)
    exact = observed(model, inputs, sample=False)
    with torch.autocast("cpu", torch.bfloat16):
        rough = observed(model, inputs, sample=False)
        sum(x.square().sum() for x in rough).backward()
    for one, other in zip(rough, exact, strict=True):
        assert one.dtype == torch.float32
        assert 0 < (one - other).abs().mean() < 0.02
    for name, weight in model.named_parameters():
        if not name.startswith("prior"):
            assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_filters_as_the_cpu_does() -> None:
    model, inputs = rssm(), window()
    on_cpu = observed(model, inputs, sample=False)
    sum(x.square().sum() for x in on_cpu).backward()
    expected = [w.grad for w in model.posterior.parameters()]
    twin, moved = rssm().cuda(), [x.detach().cuda() for x in inputs]
    twin.load_state_dict(model.state_dict())
    on_gpu = observed(twin, tuple(moved), sample=False)
    sum(x.square().sum() for x in on_gpu).backward()
    for one, other in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(one.cpu(), other)
    for weight, other in zip(twin.posterior.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad.cpu(), other)
