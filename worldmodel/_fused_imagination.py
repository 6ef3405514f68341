"""Rollouts of a squashed normal policy in a frozen Gaussian RSSM as one differentiable operation.

Equal to the loop in `imagine`, and faster. Decisions run without a graph; backward walks them once in reverse, and
leaves the policy's weights to one product over all decisions at the end.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.distributions import squashed_sample
from worldmodel.dynamics._backward import Norm, gate_derivatives, last_first, norm, normed, product, silu_backward
from worldmodel.dynamics.rssm_gaussian import GaussianRSSM
from worldmodel.nets import NormGRUCell


def fused_imagine(
    dynamics: object, act: object, start: Float[Tensor, "R D"], *, horizon: int
) -> tuple[Float[Tensor, "_ R D"], Float[Tensor, "H R"]] | None:
    """The states of `horizon` decisions after `start`, itself the first, and the log density of every action.

    None unless both are the very classes that this stands for and the model's weights want no gradients.
    In the weights' precision whatever autocast says: products of so few rows gain nothing from less.
    """
    if type(dynamics) is not GaussianRSSM or type(act) is not SquashedNormalActor or not dynamics.fused:
        return None
    world = _world(dynamics)
    if any(weight.requires_grad for weight in world):
        return None
    policy = _policy(act)
    start = start.to(world.gates.dtype)
    rows = horizon, len(start)
    noise = start.new_empty(*rows, len(policy.outputs_bias) // 2).normal_()
    draws = start.new_empty(*rows, dynamics.stochastic).normal_()
    inputs = noise, draws, start, *world, *policy.flat()
    states, outputs = _Imagine.apply(act, dynamics.min_std, *inputs)  # type: ignore[no-untyped-call]
    return states, squashed_sample(*act.read(outputs), noise)[1]


class _World(NamedTuple):
    """The model's weights, which get no gradients. inner: width of the input layer, joined: of [inner, h]."""

    input: Float[Tensor, "inner inputs"]  # of [z, action]
    input_gain: Float[Tensor, "inner"]  # gains and shifts are LayerNorm's
    input_shift: Float[Tensor, "inner"]
    gates: Float[Tensor, "gates joined"]
    gates_gain: Float[Tensor, "gates"]
    gates_shift: Float[Tensor, "gates"]
    prior: Float[Tensor, "hidden det"]
    prior_bias: Float[Tensor, "hidden"]
    prior_gain: Float[Tensor, "hidden"]
    prior_shift: Float[Tensor, "hidden"]
    moments: Float[Tensor, "moments hidden"]
    moments_bias: Float[Tensor, "moments"]


class _Layer(NamedTuple):
    """A block of a perceptron: linear, LayerNorm, SiLU."""

    weight: Float[Tensor, "hidden inputs"]
    bias: Float[Tensor, "hidden"] | None
    gain: Float[Tensor, "hidden"]
    shift: Float[Tensor, "hidden"]


class _Policy(NamedTuple):
    """The actor's weights, or their gradients."""

    layers: Sequence[_Layer]
    outputs: Float[Tensor, "outputs hidden"]
    outputs_bias: Float[Tensor, "outputs"]

    def flat(self) -> tuple[Tensor | None, ...]:
        return *(weight for layer in self.layers for weight in layer), self.outputs, self.outputs_bias

    @classmethod
    def of(cls, flat: Sequence[Any]) -> "_Policy":
        *hidden, outputs, bias = flat
        size = len(_Layer._fields)
        return cls([_Layer(*hidden[k : k + size]) for k in range(0, len(hidden), size)], outputs, bias)


class _Trace(NamedTuple):
    """What backward needs of every decision, [H R ...]: the sums before the norms, and what was read off them."""

    outputs: Tensor  # of the actor
    action: Tensor
    input: Tensor
    gates: Tensor
    prior: Tensor
    moments: Tensor  # mean, and std before its softplus
    layers: Sequence[Tensor]  # of the actor


def _world(dynamics: GaussianRSSM) -> _World:
    layers: list[Any] = [*dynamics.inputs, dynamics.cell.gates, dynamics.cell.norm, *dynamics.prior]
    inputs, input_norm, _, gates, gates_norm, prior, prior_norm, _, moments = layers
    return _World(
        input=inputs.weight,
        input_gain=input_norm.weight,
        input_shift=input_norm.bias,
        gates=gates.weight,
        gates_gain=gates_norm.weight,
        gates_shift=gates_norm.bias,
        prior=prior.weight,
        prior_bias=prior.bias,
        prior_gain=prior_norm.weight,
        prior_shift=prior_norm.bias,
        moments=moments.weight,
        moments_bias=moments.bias,
    )


def _policy(actor: SquashedNormalActor) -> _Policy:
    parts: list[Any] = [*actor.net]
    blocks = zip(parts[:-1:3], parts[1:-1:3], strict=True)
    layers = [_Layer(linear.weight, linear.bias, after.weight, after.bias) for linear, after in blocks]
    return _Policy(layers, parts[-1].weight, parts[-1].bias)


class _Imagine(torch.autograd.Function):
    """States [H+1 R D] and the actor's outputs [H R 2A]."""

    @staticmethod
    def forward(ctx: Any, actor: SquashedNormalActor, min_std: float, *inputs: Any) -> tuple[Tensor, Tensor]:
        noise, draws, start, *weights = inputs
        world, policy = _World(*weights[: len(_World._fields)]), _Policy.of(weights[len(_World._fields) :])
        with torch.autocast(start.device.type, enabled=False):
            states, trace = _roll_out(actor, min_std, noise, draws, start, world, policy)
        *single, layers = trace
        ctx.actor, ctx.layers = actor, len(layers)
        ctx.save_for_backward(noise, draws, states, *single, *layers, *weights)
        return states, trace.outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        noise, draws, states, *saved = ctx.saved_tensors
        single = len(_Trace._fields) - 1
        sums, weights = saved[single : single + ctx.layers], saved[single + ctx.layers :]
        trace = _Trace._make([*saved[:single], sums])
        world, policy = _World(*weights[: len(_World._fields)]), _Policy.of(weights[len(_World._fields) :])
        with torch.autocast(states.device.type, enabled=False):
            norms = [norm(x, layer.gain, layer.shift) for x, layer in zip(trace.layers, policy.layers, strict=True)]
            by_outputs = ctx.actor.action_slopes(trace.outputs, noise, trace.action)
            d_states, d_outputs = gradients
            rows, d_start = _walk_back(d_states, d_outputs, by_outputs, draws, states, trace, norms, world, policy)
            d_policy = _weight_gradients(rows, states, norms, policy)
        return None, None, None, None, d_start, *[None] * len(world), *d_policy.flat()


def _roll_out(
    actor: SquashedNormalActor, min_std: float, noise: Tensor, draws: Tensor, start: Tensor, w: _World, policy: _Policy
) -> tuple[Tensor, _Trace]:
    """All states, and what else backward needs of every decision; products are written where backward reads them."""
    D, (H, R, S) = len(w.gates) // 3, draws.shape
    late = torch.cat([w.gates_shift[: 2 * D], w.gates_shift[2 * D :] - 1])  # once instead of in every row
    states = start.new_empty(H + 1, R, D + S)
    states[0] = start
    trace = _Trace(
        outputs=start.new_empty(H, R, len(policy.outputs)),
        action=torch.empty_like(noise),
        input=start.new_empty(H, R, len(w.input)),
        gates=start.new_empty(H, R, len(w.gates)),
        prior=start.new_empty(H, R, len(w.prior)),
        moments=start.new_empty(H, R, len(w.moments)),
        layers=[start.new_empty(H, R, len(layer.weight)) for layer in policy.layers],
    )
    for k in range(H):
        x = states[k]
        for layer, sums in zip(policy.layers, trace.layers, strict=True):
            x = F.silu(normed(_linear(x, layer.weight, layer.bias, sums[k]), layer.gain, layer.shift))
        mean, std = actor.read(_linear(x, policy.outputs, policy.outputs_bias, trace.outputs[k]))
        action = torch.tanh(torch.addcmul(mean, std, noise[k]), out=trace.action[k])
        h, z = states[k].split_with_sizes([D, S], -1)
        x = _linear(torch.cat([z, action], -1), w.input, None, trace.input[k])
        x = torch.cat([F.silu(normed(x, w.input_gain, w.input_shift)), h], -1)
        gates = normed(_linear(x, w.gates, None, trace.gates[k]), w.gates_gain, late)
        reset, candidate, update = gates.chunk(3, -1)
        h = NormGRUCell.mix(reset, candidate, update, h)
        x = F.silu(normed(_linear(h, w.prior, w.prior_bias, trace.prior[k]), w.prior_gain, w.prior_shift))
        mean, raw = _linear(x, w.moments, w.moments_bias, trace.moments[k]).chunk(2, -1)
        torch.cat([h, torch.addcmul(mean, F.softplus(raw) + min_std, draws[k])], -1, out=states[k + 1])
    return states, trace


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    return torch.mm(x, weight.t(), out=out) if bias is None else torch.addmm(bias, x, weight.t(), out=out)


class _Rows(NamedTuple):
    """Gradients of every decision, [H R ...]."""

    outputs: Tensor
    layers: Sequence[tuple[Tensor, Tensor]]  # of the layers' sums, and of their norms' outputs


def _walk_back(
    d_states: Tensor,
    d_outputs: Tensor,
    by_outputs: Float[Tensor, "H R 2 A"],
    draws: Tensor,
    states: Tensor,
    trace: _Trace,
    norms: Sequence[Norm],
    w: _World,
    policy: _Policy,
) -> tuple[_Rows, Tensor]:
    """Gradients of every decision, and of the start."""
    X, D, A = len(w.input), len(w.gates) // 3, by_outputs.shape[-1]
    S = states.shape[-1] - D
    of_input = norm(trace.input, w.input_gain, w.input_shift)
    of_gates = norm(trace.gates, w.gates_gain, w.gates_shift)
    of_prior = norm(trace.prior, w.prior_gain, w.prior_shift)
    by_gates, stay = gate_derivatives(of_gates.output, states[:-1, :, :D])
    activated = [part.output for part in (of_prior, of_input, *norms)]
    columns = (
        d_states[1:],
        d_outputs.unflatten(-1, (2, A)),
        by_outputs,
        torch.sigmoid(trace.moments[..., S:]) * draws,
        by_gates,
        stay,
    )
    into = [*(layer.weight for layer in policy.layers[1:]), policy.outputs]  # what a layer's outputs are multiplied by
    later, rows = torch.zeros_like(states[0]), []
    for column, active, *at in zip(
        zip(*map(last_first, columns), strict=True),
        zip(*map(last_first, activated), strict=True),
        *(part.rows() for part in (of_prior, of_gates, of_input, *norms)),
        strict=True,
    ):
        d_state, own, by_output, by_raw, by_gate, kept = column
        d_h, d_z = (d_state + later).split_with_sizes([D, S], -1)
        d_x = torch.mm(torch.cat([d_z, d_z * by_raw], -1), w.moments)
        d_prior = of_prior.back(silu_backward(d_x, active[0]), at[0])
        d_h = torch.addmm(d_h, d_prior, w.prior)
        d_gates = of_gates.back((d_h.unsqueeze(1) * by_gate).flatten(1), at[1])
        d_x, d_before = torch.mm(d_gates, w.gates).split_with_sizes([X, D], -1)
        d_input = of_input.back(silu_backward(d_x, active[1]), at[2])
        d_z, d_action = torch.mm(d_input, w.input).split_with_sizes([S, A], -1)
        gradient = d_output = torch.addcmul(own, d_action.unsqueeze(1), by_output).flatten(1)
        of_layers: list[tuple[Tensor, Tensor]] = []
        for part, weight, x, row in reversed([*zip(norms, into, active[2:], at[3:], strict=True)]):
            d_normed = silu_backward(torch.mm(gradient, weight), x)
            gradient = part.back(d_normed, row)
            of_layers.append((gradient, d_normed))
        d_before = torch.cat([torch.addcmul(d_before, d_h, kept), d_z], -1)
        later = torch.addmm(d_before, gradient, policy.layers[0].weight)
        rows.append((d_output, *(x for pair in reversed(of_layers) for x in pair)))
    outputs, *flat = (torch.stack(column[::-1]) for column in zip(*rows, strict=True))
    return _Rows(outputs, [*zip(flat[::2], flat[1::2], strict=True)]), d_states[0] + later


def _weight_gradients(rows: _Rows, states: Tensor, norms: Sequence[Norm], policy: _Policy) -> _Policy:
    """One product over all decisions per weight."""
    read, layers = states[:-1], []
    for (d_sums, d_normed), part, layer in zip(rows.layers, norms, policy.layers, strict=True):
        bias = None if layer.bias is None else d_sums.sum((0, 1))
        layers.append(_Layer(product(d_sums, read), bias, *part.back_weights(d_normed)))
        read = F.silu(part.output)
    return _Policy(layers, product(rows.outputs, read), rows.outputs.sum((0, 1)))
