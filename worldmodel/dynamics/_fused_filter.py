"""The Gaussian RSSM's filter over a window as one differentiable operation: equal to the loop in `observe`, and faster.

Autograd would record some twenty operations per row, and multiply every weight's gradient row by row. Here the rows
run without a graph; backward walks them once in reverse, and leaves the weights to one product over all rows at the
end. Row by row it is h' = GRU(silu(norm(z, a)), h), then z' = m + σ·noise with (m, σ) read off h' and the embedding.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from worldmodel.dynamics._backward import Norm, gate_derivatives, last_first, norm, normed, product, silu_backward
from worldmodel.dynamics.recurrent import RecurrentState
from worldmodel.nets import NormGRUCell


class ScanWeights(NamedTuple):
    """Weights inside the recurrence. inner: width of the input layer, hidden: of the
    posterior's, joined: of both."""

    input: Float[Tensor, "inner stoch"]  # of z; the action's share comes as action_part
    input_gain: Float[Tensor, "inner"]  # gains and shifts are LayerNorm's
    input_shift: Float[Tensor, "inner"]
    gates: Float[Tensor, "gates joined"]  # of [x, h]; rows are reset, candidate, update
    gates_gain: Float[Tensor, "gates"]
    gates_shift: Float[Tensor, "gates"]
    state: Float[Tensor, "hidden det"]  # of h; the embedding's share comes as embed_part
    state_gain: Float[Tensor, "hidden"]
    state_shift: Float[Tensor, "hidden"]
    moments: Float[Tensor, "moments hidden"]
    moments_bias: Float[Tensor, "moments"]


class Filtered(NamedTuple):
    """The window's latents [h, z], and the moments that z was drawn from."""

    latent: Float[Tensor, "B T D"]
    mean: Float[Tensor, "B T stoch"]
    std: Float[Tensor, "B T stoch"]


def fused_filter(
    model: RecurrentState,
    embed: Float[Tensor, "B T E"],
    action: Float[Tensor, "B T A"],
    keep: Float[Tensor, "B T 1"],
    noise: Float[Tensor, "B T stoch"],
    carry: Float[Tensor, "B D"],
    *,
    min_std: float,
) -> Filtered:
    """The loop in `GaussianRSSM.observe`, in the weights' precision whatever autocast says.

    keep: 0 where an episode opens, else 1. noise: standard normal for samples, zeros for means.
    """
    of_action, of_embed, weights = _weights(model)
    # what embeddings and actions add to two layers before their norms, of all rows at once
    parts = F.linear(embed, *of_embed), F.linear(action * keep, of_action)
    dtype = weights.gates.dtype
    streams = [x.to(dtype).transpose(0, 1) for x in (*parts, keep, noise)]
    if torch.is_grad_enabled():
        latent, mean, std = _Scan.apply(*streams, carry.to(dtype), min_std, *weights)  # type: ignore[no-untyped-call]
    else:
        rows = _filter_rows(_Streams(*streams), carry.to(dtype), min_std, weights)
        mean, _, std, latent = (torch.stack(column) for column in list(zip(*rows, strict=True))[-4:])
    # contiguous, because everyone downstream flattens its rows
    return Filtered(latent.transpose(0, 1).contiguous(), mean.transpose(0, 1), std.transpose(0, 1))


def _weights(model: RecurrentState) -> tuple[Tensor, tuple[Tensor, Tensor], ScanWeights]:
    """The shares of actions and embeddings in the two layers before the norms, and all that acts row by row."""
    layers: list[Any] = [*model.inputs, model.cell.gates, model.cell.norm, *model.posterior]
    inputs, input_norm, _, gates, gates_norm, posterior, state_norm, _, moments = layers
    # splits, not slices: their gradient is one concatenation instead of two padded sums
    of_z, of_action = inputs.weight.split_with_sizes([model.stochastic, model.action_dim], 1)
    of_h, of_embed = posterior.weight.split_with_sizes([model.deterministic, model.embed_dim], 1)
    weights = ScanWeights(
        input=of_z,
        input_gain=input_norm.weight,
        input_shift=input_norm.bias,
        gates=gates.weight,
        gates_gain=gates_norm.weight,
        gates_shift=gates_norm.bias,
        state=of_h,
        state_gain=state_norm.weight,
        state_shift=state_norm.bias,
        moments=moments.weight,
        moments_bias=moments.bias,
    )
    return of_action, (of_embed, posterior.bias), weights


class _Scan(torch.autograd.Function):
    """Time first, unlike the public door."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        *streams, carry, min_std = arguments[:6]
        weights = ScanWeights(*arguments[6:])
        rows = _filter_rows(_Streams(*streams), carry, min_std, weights)
        trace = _Trace(*map(torch.stack, zip(*rows, strict=True)))
        _, _, keep, noise = streams
        ctx.save_for_backward(keep, noise, *trace, *weights)
        return trace.latent, trace.mean, trace.std

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        keep, noise, *saved = ctx.saved_tensors
        trace, weights = _Trace(*saved[: len(_Trace._fields)]), ScanWeights(*saved[len(_Trace._fields) :])
        with torch.autocast(keep.device.type, enabled=False):
            norms = _norms(trace, weights)
            rows, d_carry = _backward(Filtered(*gradients), keep, noise, trace, norms, weights)
            d_weights = _weight_gradients(rows, trace, norms)
        return rows.state, rows.input, None, None, d_carry, None, *d_weights


class _Streams(NamedTuple):
    """What every row reads, [T B ...]."""

    embed_part: Tensor
    action_part: Tensor
    keep: Tensor
    noise: Tensor


class _Trace(NamedTuple):
    """What backward needs of every row, [T B ...]: the sums before the norms, and what the products read."""

    z: Tensor  # of the row before, zero where an episode opens
    input: Tensor
    xh: Tensor  # h of the row before likewise
    gates: Tensor
    state: Tensor
    hidden: Tensor
    mean: Tensor
    raw: Tensor  # the std before its softplus
    std: Tensor
    latent: Tensor


class _Rows(NamedTuple):
    """Gradients of every row, [T B ...]: of the three layers' sums, and of their norms' outputs."""

    input: Tensor
    input_normed: Tensor
    gates: Tensor
    gates_normed: Tensor
    state: Tensor
    state_normed: Tensor
    moments: Tensor


def _filter_rows(streams: _Streams, carry: Tensor, min_std: float, w: ScanWeights) -> list[tuple[Tensor, ...]]:
    """Every row's `_Trace`, as plain tuples."""
    of_z, of_xh, of_h, of_hidden = w.input.t(), w.gates.t(), w.state.t(), w.moments.t()
    S, D = w.input.shape[1], w.state.shape[1]
    latent = carry
    rows: list[tuple[Tensor, ...]] = []
    with torch.autocast(carry.device.type, enabled=False):
        # the update gate's bias of -1, once instead of in every row
        late = torch.cat([w.gates_shift[: 2 * D], w.gates_shift[2 * D :] - 1])
        for embed_part, action_part, keep, noise in zip(*(x.unbind(0) for x in streams), strict=True):
            h, z = (latent * keep).split_with_sizes([D, S], -1)
            input_sum = torch.addmm(action_part, z, of_z)
            x = F.silu(normed(input_sum, w.input_gain, w.input_shift))
            xh = torch.cat([x, h], -1)
            gates_sum = torch.mm(xh, of_xh)
            gates = normed(gates_sum, w.gates_gain, late)
            reset, candidate, update = gates.chunk(3, -1)
            h = NormGRUCell.mix(reset, candidate, update, h)
            state_sum = torch.addmm(embed_part, h, of_h)
            hidden = F.silu(normed(state_sum, w.state_gain, w.state_shift))
            mean, raw = torch.addmm(w.moments_bias, hidden, of_hidden).chunk(2, -1)
            std = F.softplus(raw) + min_std
            latent = torch.cat([h, torch.addcmul(mean, std, noise)], -1)
            rows.append((z, input_sum, xh, gates_sum, state_sum, hidden, mean, raw, std, latent))
    return rows


def _norms(trace: _Trace, w: ScanWeights) -> tuple[Norm, Norm, Norm]:
    return (
        norm(trace.input, w.input_gain, w.input_shift),
        norm(trace.gates, w.gates_gain, w.gates_shift),
        norm(trace.state, w.state_gain, w.state_shift),
    )


def _backward(
    gradients: Filtered, keep: Tensor, noise: Tensor, trace: _Trace, norms: tuple[Norm, Norm, Norm], w: ScanWeights
) -> tuple[_Rows, Tensor]:
    """Gradients of every row, and of the carry."""
    of_input, of_gates, of_state = norms
    (X, S), D = w.input.shape, w.state.shape[1]
    derivatives = (
        *_moment_derivatives(gradients, noise, trace),
        of_state.output,
        *gate_derivatives(of_gates.output, trace.xh[..., X:]),
        of_input.output,
    )
    columns = map(last_first, (gradients.latent, keep, *derivatives))
    d_carry, rows = torch.zeros_like(trace.latent[0]), []
    for column, *row in zip(zip(*columns, strict=True), of_input.rows(), of_gates.rows(), of_state.rows(), strict=True):
        d_latent, kept, direct, by_z, state_normed, by_h, stay, input_normed = column
        d_h, d_z = (d_latent + d_carry).split_with_sizes([D, S], -1)
        d_moments = torch.addcmul(direct, d_z.unsqueeze(1), by_z).flatten(1)
        d_state_normed = silu_backward(torch.mm(d_moments, w.moments), state_normed)
        d_state = of_state.back(d_state_normed, row[2])
        d_h = torch.addmm(d_h, d_state, w.state)
        d_gates_normed = (d_h.unsqueeze(1) * by_h).flatten(1)
        d_gates = of_gates.back(d_gates_normed, row[1])
        d_x, d_before = torch.mm(d_gates, w.gates).split_with_sizes([X, D], -1)
        d_input_normed = silu_backward(d_x, input_normed)
        d_input = of_input.back(d_input_normed, row[0])
        d_carry = torch.cat([torch.addcmul(d_before, d_h, stay), torch.mm(d_input, w.input)], -1) * kept
        rows.append((d_input, d_input_normed, d_gates, d_gates_normed, d_state, d_state_normed, d_moments))
    return _Rows(*(torch.stack(column[::-1]) for column in zip(*rows, strict=True))), d_carry


def _moment_derivatives(gradients: Filtered, noise: Tensor, trace: _Trace) -> tuple[Tensor, Tensor]:
    """Of mean and raw std: their own gradients, and the derivatives of z by them, [T B 2 S]."""
    by_raw = torch.sigmoid(trace.raw)
    own = torch.stack([gradients.mean, gradients.std * by_raw], -2)
    return own, torch.stack([torch.ones_like(by_raw), noise * by_raw], -2)


def _weight_gradients(rows: _Rows, trace: _Trace, norms: tuple[Norm, Norm, Norm]) -> ScanWeights:
    """One product over all rows per weight."""
    of_input, of_gates, of_state = norms
    D = trace.gates.shape[-1] // 3
    return ScanWeights(
        product(rows.input, trace.z),
        *of_input.back_weights(rows.input_normed),
        product(rows.gates, trace.xh),
        *of_gates.back_weights(rows.gates_normed),
        product(rows.state, trace.latent[..., :D]),
        *of_state.back_weights(rows.state_normed),
        product(rows.moments, trace.hidden),
        rows.moments.sum((0, 1)),
    )
