"""What is exported beside the weights: filter, policy and one planner iteration as programs of fixed shapes.

They are for runtimes without Python (AOTInductor, onnxruntime, TensorRT). Nothing here reads one back: loading a `.pt2`
archive unpickles whatever its constants and example inputs are, so the bundle's truth is its weights and configuration.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.bundle.bundle import Acting
from trainers.command.configuration import BadConfig
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.planners.cem import CEM
from worldmodel.planners.shooting import Proposal, Scored, finite, moments
from worldmodel.simulators.latent import score_by_steps
from worldmodel.spec import EnvSpec

FORMATS = ("torch", "onnx")


@dataclass(frozen=True, slots=True)
class Program:
    """A module with inputs of the only shapes it takes."""

    module: nn.Module
    inputs: Mapping[str, Tensor]  # by name, in the order of the module's arguments
    outputs: tuple[str, ...]  # names


class FilterStep(nn.Module):
    """One row: last action [1 A], is_first [1], carry [1 C], then the observations, to the latent [1 D] and the carry.

    names: of the observations, images uint8 [1 c h w] and vectors float32 [1 d].
    """

    def __init__(self, agent: Acting, names: tuple[str, ...]) -> None:
        super().__init__()
        self.norm, self.encoder, self.dynamics, self.names = agent.norm, agent.encoder, agent.dynamics, names

    def forward(self, action: Tensor, is_first: Tensor, carry: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
        """As `LatentMPC.act` filters."""
        rows = {name: part[:, None] for name, part in zip(self.names, parts, strict=True)}
        last = torch.where(is_first[:, None], 0.0, action)
        embed = self.encoder(self.norm(rows))
        belief = self.dynamics.observe(embed, last[:, None], is_first[:, None], carry, sample=False)
        return belief.latent[:, 0], belief.carry


class PolicyStep(nn.Module):
    """A latent [1 D] to the policy's action [1 A] in [-1, 1]."""

    def __init__(self, agent: Acting) -> None:
        super().__init__()
        assert agent.actor is not None
        self.actor: Any = agent.actor

    def forward(self, latent: Tensor) -> Tensor:
        """Its mode."""
        return self.actor.mode(latent)  # type: ignore[no-any-return]


class RecordableCEM(CEM):
    """A CEM whose refit is the same operations whatever the scores are."""

    def of_elites(self, proposal: Proposal, top: Scored) -> Proposal:
        """Mean and std of those that are finite; where none is, the proposal as it was."""
        return moments(proposal, top.actions, finite(top.scores).to(top.actions.dtype))


class CEMIteration(nn.Module):
    """Algorithm 21's loop body of a plain CEM: sample with given noise, score in the learned world, refit to elites."""

    def __init__(self, agent: LatentMPC) -> None:
        super().__init__()
        assert isinstance(agent.planner, CEM)
        self.planner = RecordableCEM(**{part.name: getattr(agent.planner, part.name) for part in fields(CEM)})
        self.parts = nn.ModuleList(part for part in vars(agent)["_modules"].values() if part is not None)
        self.simulator = agent.simulator()

    def forward(
        self, latent: Tensor, mean: Tensor, std: Tensor, noise: Tensor, joining: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Refit.

        Args:
            latent: [1 D].
            mean, std: [1 H A] of the proposal.
            noise: [1 N H A] standard normal; of the first candidate it is taken for 0.
            joining: [1 P H A] sequences that compete too, the policy's; NaN leaves them out. None without a policy.

        Returns:
            The new mean and std [1 H A], and the best candidate's predicted return [1].
        """
        noise = torch.cat([torch.zeros_like(noise[:, :1]), noise[:, 1:]], 1)
        sampled = torch.addcmul(mean[:, None], noise, std[:, None])
        actions = torch.cat([part.clamp(-1, 1) for part in (sampled, joining) if part is not None], 1)
        bad = -torch.inf
        scores = score_by_steps(self.simulator, latent, actions).nan_to_num(nan=bad, posinf=bad, neginf=bad)
        new = self.planner.refit(Proposal(mean, std), Scored(actions, scores))
        return new.mean, new.std, scores.amax(1)


def programs_of(agent: Acting, spec: EnvSpec, *, what: str) -> dict[str, Program]:
    """What can be exported of an agent, by name; planners other than CEM have no program."""
    generator = torch.Generator().manual_seed(0)
    carry = agent.initial_carry(1)
    images = {name: torch.randint(256, (1, *shape), generator=generator) for name, shape in spec.images.items()}
    parts = {name: image.to(torch.uint8) for name, image in images.items()}
    parts |= {name: torch.zeros(1, size) for name, size in spec.vectors.items()}
    rows = {"action": carry.action, "is_first": torch.tensor([False]), "carry": carry.belief, **parts}
    found = {"filter": Program(FilterStep(agent, tuple(parts)), rows, ("latent", "next_carry"))}
    latent = torch.zeros(1, agent.dynamics.latent_dim)
    if agent.actor is not None and what != "planner":
        found["policy"] = Program(PolicyStep(agent), {"latent": latent}, ("action",))
    if isinstance(agent, LatentMPC) and type(agent.planner) is CEM and what != "policy":
        shape, planner = carry.plan.shape[1:], agent.planner
        joined = planner.policy_candidates if agent.policy is not None else 0
        inputs = {
            "latent": latent,
            "mean": torch.zeros(1, *shape),
            "std": torch.full((1, *shape), planner.init_std),
            "noise": torch.randn(1, planner.candidates, *shape, generator=generator),
        }
        # without a policy nothing joins: another candidate, such as zeros, would be one that the agent does not have
        inputs |= {"joining": torch.zeros(1, joined, *shape)} if joined else {}
        found["planner_iteration"] = Program(CEMIteration(agent), inputs, ("next_mean", "next_std", "best"))
    return found


def require_formats(text: str) -> tuple[str, ...]:
    """The formats that a text names, `torch,onnx` or `none`; raises BadConfig for others and for missing packages."""
    names = tuple(name for name in text.split(",") if name and name != "none")
    for name in names:
        if name not in FORMATS:
            raise BadConfig(f"format: expected some of {', '.join(FORMATS)}, or none, got {text!r}")
    if "onnx" in names and (missing := [p for p in ("onnx", "onnxscript", "onnxruntime") if find_spec(p) is None]):
        raise BadConfig(f"format: onnx needs {', '.join(missing)}: pip install 'worldmodel[deploy]', or format=torch")
    return names


def record(program: Program) -> torch.export.ExportedProgram:
    """The graph of a program."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(program.module, tuple(program.inputs.values()))


def to_torch(exported: torch.export.ExportedProgram) -> bytes:
    """A `.pt2` archive of a recorded graph, without the example inputs: they would be its only pickle."""
    exported._example_inputs = None
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(exported, buffer)
    return buffer.getvalue()


def to_onnx(program: Program) -> bytes:
    """A self-contained ONNX model."""
    logging.getLogger("onnxscript.optimizer").setLevel(logging.ERROR)  # which warns of what it does not make faster
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "program.onnx"
        torch.onnx.export(
            program.module,
            tuple(program.inputs.values()),
            str(path),
            input_names=list(program.inputs),
            output_names=list(program.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
            custom_translation_table={torch.ops.prims.prod.default: _onnx_product},
        )
        return path.read_bytes()


def _onnx_product(values: Any, axes: Sequence[int], output_dtype: Any = None) -> Any:
    """What the exporter makes of a cumulative product, as of continuations, and has no form for."""
    from onnxscript import opset18

    over: Any = opset18.Constant(value_ints=axes)
    return opset18.ReduceProd(values, over, keepdims=0)
