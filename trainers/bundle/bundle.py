"""A bundle in memory: how to run the agent, and the agent itself, rebuilt from weights and names of known parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from trainers.build.agent import build_agent, load_weights
from trainers.build.student import build_student
from trainers.bundle.control_spec import ControlSpec
from trainers.bundle.files import AGENT, CONTROL, PARITY, WEIGHTS, BundleDamaged, read_files
from trainers.command.configuration import is_student
from trainers.command.registry import UnknownComponent
from trainers.run_folder.conversion import FORMAT, convert_checkpoint, convert_config
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.agents.student_in_task import StudentInTask

# of a run's configuration: what `build_agent` reads; no paths, no folders of parts, nothing that could name code
GROUPS = ("agent", "dynamics", "objective", "planner", "policy")
WHAT = ("planner", "policy", "both")
Acting = LatentMPC | StudentInTask


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `trainers.export` wrote, verified.

    Args:
        control: observations, actions, rate, delays and limits.
        what: acts: "planner" alone, "policy" alone, or "both", where the policy stands in for a late planner.
        config: of the agent, as its run had it.
        weights: by name as in a checkpoint, without those that only learning needs.
        sha256: of the manifest, which holds those of all files.
        parity: exported programs beside the agent, as measured at the export; empty without programs.
        versions: of packages and of this project, when it was exported.
        folder: that it was read from.
    """

    control: ControlSpec
    what: str
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    sha256: str
    parity: Mapping[str, Any]
    versions: Mapping[str, str]
    folder: Path

    def build(self) -> Acting:
        """The agent in evaluation mode, on the CPU; raises WeightsDiffer or UnknownComponent."""
        try:
            return rebuild(self.config, self.control, self.weights)
        except UnknownComponent as error:
            raise UnknownComponent(f"{error}; a part of your own is found where parts= says") from error


def rebuild(config: Mapping[str, Any], control: ControlSpec, weights: Mapping[str, Tensor]) -> Acting:
    """The agent of a bundle's parts, or the student in its task."""
    agent = StudentInTask(build_student(config)) if is_student(config) else build_agent(config, control.env)
    load_weights(agent, weights)
    return agent.eval().requires_grad_(False)


def read_bundle(folder: str | Path) -> Bundle:
    """Read and verify a bundle; nothing in it is unpickled or executed, and its compiled programs are not opened.

    Args:
        folder: that `trainers.export` wrote.

    Raises:
        BundleDamaged: a file is missing, surplus or altered, or not of this schema.
        UserError: what else is wrong with its content, by key.
    """
    folder = Path(folder).expanduser()
    files, digest = read_files(folder)
    try:
        described = json.loads(files[AGENT])
        what, versions = str(described["what"]), dict(described["versions"])
        config = convert_config(described["config"], path=folder / AGENT)
        control = ControlSpec.from_json(json.loads(files[CONTROL]))
        checkpoint = {"format": described["config"]["format"], "state_dict": safetensors.torch.load(files[WEIGHTS])}
        weights = convert_checkpoint(checkpoint, path=folder / WEIGHTS)["state_dict"]
        parity = json.loads(files[PARITY]) if PARITY in files else {}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleDamaged(f"{folder}: expected a bundle's content, got {error}") from error
    if what not in WHAT or set(config) != set(GROUPS):
        raise BundleDamaged(f"{folder / AGENT}: expected {WHAT} and {GROUPS}, got {what!r} and {sorted(config)}")
    if is_student(config) and what != "policy":
        raise BundleDamaged(f"{folder / AGENT}: expected policy of a student, got {what!r}")
    # absolute: a planner that is started again reads it after this process may have gone to another folder
    return Bundle(control, what, config, weights, digest, parity, versions, folder.absolute())


def encode(
    *, control: ControlSpec, what: str, agent: Acting, config: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, bytes]:
    """The files of a bundle, without programs."""
    described = {"what": what, "versions": dict(versions), "config": {"format": FORMAT, **config}}
    weights = {f"agent.{name}": weight.detach().cpu().contiguous() for name, weight in agent.state_dict().items()}
    return {
        CONTROL: as_json(control.to_json()),
        AGENT: as_json({**described, "normalisers": _normalisers(agent)}),
        WEIGHTS: safetensors.torch.save(weights),
    }


def as_json(record: Any) -> bytes:
    """Readable JSON."""
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def _normalisers(agent: Acting) -> dict[str, Any]:
    """For readers: what observations are shifted and scaled by (a mean frame is in the weights)."""
    named: dict[str, Any] = {}
    for name, part in zip(agent.norm.names, agent.norm.parts, strict=True):
        mean, std = part.mean, part.std
        assert isinstance(mean, Tensor) and isinstance(std, Tensor)
        named[name] = {"mean": mean.tolist() if mean.ndim == 1 else f"{WEIGHTS}: norm.parts", "std": std.tolist()}
    return named
