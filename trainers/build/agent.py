"""Agents from a configuration."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.command import registry
from trainers.command.configuration import is_student
from trainers.run_folder.checkpoint import load_checkpoint
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.capabilities import ChoosesAmong, Epistemic, Members
from worldmodel.errors import BadValue, UserError, naming
from worldmodel.heads.continuation import ContinuationHead
from worldmodel.limits import wrong_number
from worldmodel.objectives.objective import Objective
from worldmodel.observations import ObservationDecoder, ObservationEncoder, ObservationNorm, PixelNorm, VectorNorm
from worldmodel.policies.learner import PolicyLearner
from worldmodel.policy_spec import PolicySpec
from worldmodel.spec import EnvSpec

Config = Mapping[str, Any]
AGENTS_OWN = {"unroll", "kl"}  # in `dynamics`: the agent's, which a choice of dynamics sets


def build_agent(config: Config, spec: EnvSpec) -> LatentMPC:
    """The agent with freshly initialised weights for an environment's spec; a ValueError for a student."""
    options = config["agent"]
    if is_student(config):
        raise BadValue("agent: expected one with a model, got a student of trainers.distill, which has none")
    encoder = ObservationEncoder(build_each(options, "encoder", spec))
    dynamics = build_dynamics(config["dynamics"], spec, embed_dim=encoder.embed_dim)
    policy = _build_policy(config, spec, dynamics.latent_dim)
    objective: Objective = registry.make(
        "worldmodel.objectives", config["objective"], key="objective", encoder=encoder, dynamics=dynamics
    )
    reward = _build_head(config, dynamics.latent_dim, scale=float(spec.action_repeat))
    decoder = None
    if objective.decodes:
        decoders = build_each(options, "decoder", spec, latent_dim=dynamics.latent_dim)
        decoder = ObservationDecoder(decoders, vectors=[*spec.vectors])
    return LatentMPC(
        norm=build_norm(options, spec),
        encoder=encoder,
        decoder=decoder,
        objective=objective,
        dynamics=dynamics,
        reward=reward,
        policy=policy,
        planner=_build_planner(config, dynamics=dynamics, reward=reward, action_dim=spec.action_dim),
        action_dim=spec.action_dim,
        discount=options["discount"],
        unroll=options["unroll"],
        act_with=options["act_with"],
        replan=options["replan"],
        plan_precision=options["plan_precision"],
        random_shift=options["random_shift"],
        weights={name: weight for name, weight in options["weights"].items() if weight is not None},
        continuation=_build_continuation(config, spec, dynamics.latent_dim),  # last: others draw the same numbers
    )


def build_dynamics(options: Config, spec: EnvSpec, *, embed_dim: int) -> Any:
    """The dynamics on embeddings of that size, with freshly initialised weights."""
    model = {key: value for key, value in options.items() if key not in AGENTS_OWN}
    facts = {"embed_dim": embed_dim, "action_dim": spec.action_dim}
    if "filter" in model:
        registry.check("worldmodel.dynamics", model["filter"], key="dynamics.filter", **facts)
    return registry.make("worldmodel.dynamics", model, key="dynamics", **facts)


def build_trained_agent(config: Config, spec: EnvSpec, checkpoint: Path) -> LatentMPC:
    """The agent with a checkpoint's weights, in evaluation mode; raises CheckpointDamaged and WeightsDiffer."""
    agent = build_agent(config, spec)
    load_weights(agent, load_checkpoint(checkpoint)["state_dict"])
    return agent.eval()


def load_weights(agent: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Weights of a training checkpoint into an agent; a ValueError names what does not fit."""
    prefix = "agent."
    weights = {name.removeprefix(prefix): w for name, w in state_dict.items() if name.startswith(prefix)}
    require_fit(agent.state_dict(), weights)
    agent.load_state_dict(weights)


def build_each(options: Config, kind: str, spec: EnvSpec, **facts: Any) -> dict[str, Any]:
    """The encoder or decoder of every observation: `agent.<kind>s` by its name, else that of images or of vectors."""
    package, named = f"worldmodel.{kind}s", options.get(f"{kind}s", {})
    if unknown := set(named) - {*spec.images, *spec.vectors}:
        raise registry.DoesNotFit(f"agent.{kind}s: expected names of {spec.observed}, got {', '.join(unknown)}")
    vector = options.get(f"vector_{kind}", "vector")  # a section without vectors has none
    make: Callable[..., Any] = partial(registry.make, package, **facts)
    images = {
        name: make(named.get(name, options[kind]), key=f"agent.{kind}", pixels=shape)
        for name, shape in spec.images.items()
    }
    vectors = {
        name: make(named.get(name, vector), key=f"agent.vector_{kind}", size=size)
        for name, size in spec.vectors.items()
    }
    return images | vectors


def build_norm(options: Config, spec: EnvSpec) -> ObservationNorm:
    measured = options.get("vector_norm", "statistics") == "statistics"
    vectors = {name: VectorNorm(size, measured=measured) for name, size in spec.vectors.items()}
    return ObservationNorm({**{name: PixelNorm(shape) for name, shape in spec.images.items()}, **vectors})


def _build_head(config: Config, latent_dim: int, *, scale: float) -> Any:
    return registry.make(
        "worldmodel.heads", config["agent"]["heads"], key="agent.heads", latent_dim=latent_dim, scale=scale
    )


def _build_continuation(config: Config, spec: EnvSpec, latent_dim: int) -> ContinuationHead | None:
    """The head where it is asked for; by itself where episodes can end, or where that is not known."""
    options, data = config["agent"], config.get("data", {})  # bundles have none, and learn nothing
    chosen = options["continuation"]
    if chosen not in (True, False, "auto"):
        raise BadValue(f"agent.continuation: expected auto, true or false, got {chosen!r}")
    if not (spec.terminates is not False if chosen == "auto" else chosen):
        return None
    sizes = {name: size for name, size in options["heads"].items() if name in ("hidden", "layers")}
    return ContinuationHead(latent_dim=latent_dim, even=bool(data.get("across_episodes", False)), **sizes)


def _build_policy(config: Config, spec: EnvSpec, latent_dim: int) -> PolicyLearner | None:
    if config["policy"]["name"] is None:
        return None
    discount = config["agent"]["discount"]
    if wrong := wrong_number(discount, above=0, below=1):
        raise BadValue(f"agent.discount: {wrong} where a policy is learned")
    return_scale = spec.action_repeat / (1 - discount)

    def build_actor(options: Config) -> Any:
        options = {"name": "squashed_normal", **options}
        facts = {"latent_dim": latent_dim, "action_dim": spec.action_dim}
        return registry.make("worldmodel.actors", options, key="policy.actor", **facts)

    return registry.make(  # type: ignore[no-any-return]
        "worldmodel.policies",
        config["policy"],
        key="policy",
        spec=PolicySpec(
            latent_dim=latent_dim,
            action_dim=spec.action_dim,
            discount=discount,
            build_actor=build_actor,
            build_value=lambda inputs: _build_head(config, inputs, scale=return_scale),
            return_scale=return_scale,
            discrete=spec.discrete,
        ),
    )


def _build_planner(config: Config, *, dynamics: Any, reward: Any, action_dim: int) -> Any:
    """The planner, which the model must have what it asks for; without a policy there is nothing to seed it with."""
    options = dict(config["planner"])
    if config["policy"]["name"] is None:
        options.pop("policy_candidates", None)
    if options["name"] == "confidence" and not isinstance(reward, Epistemic):
        got = type(reward).__name__
        raise BadValue(f"planner=confidence: expected rewards with a posterior, agent.heads.name=laplace, got {got}")
    if options["name"] == "ensemble" and not isinstance(dynamics, Members):
        got = type(dynamics).__name__
        raise BadValue(f"planner=ensemble: expected members, dynamics=ensemble, laplace or variational, got {got}")
    planner = registry.make("worldmodel.planners", options, key="planner")
    if options["name"] == "ensemble" and options.get("particles", dynamics.members) % dynamics.members:
        got = options["particles"]
        raise BadValue(f"planner.particles: expected a multiple of dynamics.members={dynamics.members}, got {got}")
    if isinstance(planner, ChoosesAmong):
        with naming("planner"):
            planner.action_set(action_dim)
    return planner


class WeightsDiffer(UserError, ValueError):
    """A checkpoint's weights are not those of the agent that should take them."""


def require_fit(mine: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Raise WeightsDiffer that names the weights in which a checkpoint differs from the model that should take it."""
    missing, surplus = sorted(mine.keys() - others.keys()), sorted(others.keys() - mine.keys())
    if missing or surplus:
        raise WeightsDiffer(f"checkpoint: expected this agent's weights, missing {missing[:3]}, surplus {surplus[:3]}")
    for name, weight in others.items():
        if weight.shape != mine[name].shape:
            raise WeightsDiffer(f"checkpoint: {name}: expected {tuple(mine[name].shape)}, got {tuple(weight.shape)}")
