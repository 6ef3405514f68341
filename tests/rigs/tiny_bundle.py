"""A bundle of a tiny agent with random weights: what reads and runs bundles does not ask what it has learned."""

from pathlib import Path
from typing import Any

import torch

from trainers.build.agent import build_agent
from trainers.bundle.bundle import GROUPS, encode
from trainers.bundle.control_spec import ControlSpec, Limits
from trainers.bundle.files import write_files
from trainers.command.configuration import load_config
from worldmodel.spec import EnvSpec

LOW, HIGH = (-1.0, 0.1), (0.5, 5.3)  # asymmetric, and no float32 is exactly 0.1 or 5.3
SPEC = EnvSpec(
    task="tiny",
    images={"pixels": (3, 16, 16)},
    action_dim=2,
    action_repeat=1,
    episode_steps=50,
    action_low=LOW,
    action_high=HIGH,
)


def tiny_config(*overrides: str) -> dict[str, Any]:
    """What of a configuration acting needs."""
    config = load_config(["experiment=smoke", *overrides])
    return {name: config[name] for name in GROUPS} | {"objective": {"name": "none"}}


def tiny_bundle(
    folder: Path,
    *overrides: str,
    what: str = "both",
    spec: EnvSpec = SPEC,
    limits: dict[str, Any] | None = None,
    **control: Any,
) -> Path:
    """Write one and return its folder; frames may repeat, and old ones count, unless `limits` says otherwise."""
    patient = {"frozen": 0, "max_age_s": 10.0}
    known = ControlSpec(env=spec, limits=Limits(**patient | (limits or {})), **{"hz": 20.0, **control})
    config = tiny_config(*overrides)
    torch.manual_seed(0)
    agent = build_agent(config, spec).eval()
    write_files(folder, encode(control=known, what=what, agent=agent, config=config, versions={}))
    return folder
