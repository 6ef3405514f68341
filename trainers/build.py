"""The only place where a configuration becomes objects."""

from collections.abc import Mapping
from typing import Any

import torch

from datamodules.envs.pool import EnvPool, VectorPool
from datamodules.envs.protocol import Pool
from datamodules.envs.sources import has_lanes, takes
from datamodules.envs.states import StateEnv
from datamodules.envs.supervised import FaultLimit
from datamodules.online import OnlineData
from datamodules.replay import Replay
from datamodules.storage.budget import memory_budget, rows_of
from datamodules.windows import Sampler
from trainers import components
from trainers.module import WorldModelModule, require_fit
from trainers.run_paths import RunPaths
from worldmodel.agents.latent_mpc import LatentMPC, LossWeights
from worldmodel.agents.state_mpc import StateMPC
from worldmodel.nets import PixelNorm
from worldmodel.objectives import Objective
from worldmodel.policies.actor import Actor
from worldmodel.spec import EnvSpec, StateSpec

Config = Mapping[str, Any]

# of the `data` section; what a section leaves out has the pool's default
POOL_LIMITS = (
    *("step_timeout_s", "reset_timeout_s", "max_restarts", "restart_window_s"),
    *("blank_frames", "frozen_frames"),
)


def open_pool(config: Config, count: int, *, gpu: int | None = None, visuals: Config | None = None) -> Pool:
    """`count` supervised environments of the configured task, with `visuals` instead of the task's if given.

    gpu: the EGL device of those that draw with GL.
    """
    task, data = config["task"], config["data"]
    source = task["source"]
    device = {"gpu": gpu} if gpu is not None and takes(source, "gpu") else {}
    return (VectorPool if has_lanes(source) else EnvPool)(
        source=source,
        kwargs=device | dict(task["env"]),
        visuals=task.get("visuals") if visuals is None else visuals,
        count=count,
        **{key: data[key] for key in POOL_LIMITS if key in data},
    )


def build_fault_limit(config: Config) -> FaultLimit:
    """Of the faults that collection survives: as many as a worker's restarts."""
    names = {"most": "max_restarts", "window_s": "restart_window_s"}
    return FaultLimit(**{name: config["data"][key] for name, key in names.items() if key in config["data"]})


def open_evaluation_pool(config: Config, count: int, *, gpu: int | None = None) -> EnvPool:
    """`open_pool`, seen through `evaluation.visuals` where the configuration has it."""
    return open_pool(config, count, gpu=gpu, visuals=config["evaluation"].get("visuals"))


def require_evaluation(config: Config, spec: EnvSpec, *, gpu: int | None = None) -> None:
    """Open and close an environment of `evaluation.visuals`, if that is given; what cannot be evaluated is refused."""
    if config["evaluation"].get("visuals") is not None:
        with open_evaluation_pool(config, 1, gpu=gpu) as pool:
            require_same_frames(pool.spec, spec)


def require_same_frames(evaluated: EnvSpec, trained: EnvSpec) -> None:
    """Raise ValueError unless an agent that was trained in one environment can act in the other."""
    for fact in ("pixels", "action_dim", "action_repeat"):
        found, expected = getattr(evaluated, fact), getattr(trained, fact)
        if found != expected:
            raise ValueError(f"evaluation.visuals: expected {fact} {expected} as in training, got {found}")


def build_agent(config: Config, spec: EnvSpec) -> LatentMPC:
    """The agent with freshly initialised weights for an environment's spec; ValueError for one that acts on states."""
    options = config["agent"]
    if options["name"] == "state_mpc":
        raise ValueError("agent: expected one that acts on frames, got state_mpc, which acts on states")
    encoder = components.make("worldmodel.encoders", options["encoder"], pixels=spec.pixels)
    agents = ("unroll", "kl")  # the agent's own, which a choice of dynamics sets
    model = {key: value for key, value in config["dynamics"].items() if key not in agents}
    facts = {"embed_dim": encoder.embed_dim, "action_dim": spec.action_dim}
    if "filter" in model:
        components.check("worldmodel.dynamics", model["filter"], **facts)
    dynamics = components.make("worldmodel.dynamics", model, **facts)
    actor, imagination = _build_policy(config, spec, dynamics.latent_dim)
    objective: Objective = components.make(
        "worldmodel.objectives", config["objective"], encoder=encoder, dynamics=dynamics
    )
    sizes = {"latent_dim": dynamics.latent_dim, "pixels": spec.pixels}
    reward = _build_head(config, dynamics.latent_dim, scale=float(spec.action_repeat))
    return LatentMPC(
        pixels=PixelNorm(spec.pixels),
        encoder=encoder,
        decoder=components.make("worldmodel.decoders", options["decoder"], **sizes) if objective.decodes else None,
        objective=objective,
        dynamics=dynamics,
        reward=reward,
        imagination=imagination,
        actor=actor,
        planner=_build_planner(config, dynamics=dynamics, reward=reward),
        action_dim=spec.action_dim,
        discount=options["discount"],
        unroll=options["unroll"],
        act_with=options["act_with"],
        plan_precision=options.get("plan_precision", "float32"),  # runs of the past have none
        weights=LossWeights(**options["weights"]),
    )


def open_states(config: Config) -> StateEnv:
    """The configured task with its state observed; what the task says about frames is left out."""
    task = config["task"]
    pictures = ("size", "look", "camera")
    options = {key: value for key, value in task["env"].items() if key not in pictures}
    return components.make("datamodules.envs.states", {"name": task["source"], **options})


def build_state_agent(config: Config, spec: StateSpec) -> StateMPC:
    """The agent of Algorithms 23 to 25 with freshly initialised weights."""
    options, sizes = config["agent"], {"state_dim": spec.state_dim, "action_dim": spec.action_dim}
    dynamics = components.make("worldmodel.state_dynamics", config["dynamics"], **sizes)
    reward = components.make("worldmodel.rewards", options["reward"], **sizes, repeat=spec.action_repeat)
    return StateMPC(
        dynamics=dynamics,
        reward=reward,
        planner=_build_planner(config, dynamics=dynamics, reward=reward),
        action_dim=spec.action_dim,
        discount=options["discount"],
        replan=options["replan"],
    )


def build_sampler(config: Config, *, rank: int) -> Sampler:
    """What chooses this rank's windows."""
    return components.make("datamodules.samplers", config["data"]["sampler"], seed=config["seed"] * 1009 + rank)


def prefetches(config: Config) -> bool:
    """Whether the next batch is prepared while the learner computes."""
    ahead = config["data"]["prefetch"]
    return torch.cuda.is_available() if ahead == "auto" else ahead


def build_replay(
    config: Config, spec: EnvSpec, paths: RunPaths, *, rank: int, world_size: int, ranks_here: int = 1
) -> Replay:
    """This rank's shard of the replay, on disk in the run folder; `ranks_here` ranks share this machine."""
    data = config["data"]
    longest = spec.episode_decisions + 1
    share = rows_of(data["capacity"], spec) // world_size
    if share < 2 * longest * data["envs"]:
        least = 2 * longest * data["envs"] * world_size
        raise ValueError(
            f"data.capacity: expected at least {least} rows (two episodes per environment), got {data['capacity']}"
        )
    return Replay(
        spec=spec,
        capacity=share,
        streams=data["envs"],
        folder=paths.replay(rank),
        sampler=build_sampler(config, rank=rank),
        flush_rows=data["flush_rows"],
        memory_limit_bytes=memory_budget(data["memory_budget"]) // ranks_here,
        processes=ranks_here,
        damage_limit=data["damage_limit"],
    )


def build_data(config: Config, replay: Replay, *, world_size: int) -> OnlineData:
    """Batches from this rank's shard; `data.batch` is shared out over the ranks."""
    batch, length, longest = config["data"]["batch"], config["data"]["length"], replay.spec.episode_decisions + 1
    if batch < 1 or batch % world_size:
        raise ValueError(f"data.batch: expected a multiple of {world_size} ranks, got {batch}")
    if length > longest:
        raise ValueError(f"data.length: expected at most the {longest} rows of an episode, got {length}")
    return OnlineData(replay, batch=batch // world_size, length=length, prefetch=prefetches(config))


def build_module(
    config: Config, agent: LatentMPC | StateMPC, kind: type[WorldModelModule] = WorldModelModule
) -> WorldModelModule:
    """The LightningModule around an agent."""
    options = config["optimizer"]
    return kind(agent, learning_rates=options["learning_rates"], grad_clip=options["grad_clip"], eps=options["eps"])


def load_weights(agent: LatentMPC, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Weights of a training checkpoint into an agent; a ValueError names what does not fit."""
    prefix = "agent."
    weights = {name.removeprefix(prefix): w for name, w in state_dict.items() if name.startswith(prefix)}
    require_fit(agent.state_dict(), weights)
    agent.load_state_dict(weights)


def _build_head(config: Config, latent_dim: int, *, scale: float) -> Any:
    options = {"name": "scalar", **config["agent"]["heads"]}  # runs of the past have no name here
    return components.make("worldmodel.heads", options, latent_dim=latent_dim, scale=scale)


def _build_policy(config: Config, spec: EnvSpec, latent_dim: int) -> tuple[Any, Any]:
    options = dict(config["policy"])
    if options["name"] is None:
        return None, None
    actor = Actor(latent_dim=latent_dim, action_dim=spec.action_dim, **options.pop("actor"))
    discount = config["agent"]["discount"]
    if not 0 < discount < 1:
        raise ValueError(f"agent.discount: expected a number in (0, 1), got {discount}")
    value = _build_head(config, latent_dim, scale=spec.action_repeat / (1 - discount))
    return actor, components.make("worldmodel.policies", options, value=value)


def _build_planner(config: Config, *, dynamics: Any, reward: Any) -> Any:
    """The planner, which the model must have what it asks for; without a policy there is nothing to seed it with."""
    options = dict(config["planner"])
    if config["policy"]["name"] is None:
        options.pop("policy_candidates", None)
    if options["name"] == "confidence" and not hasattr(reward, "epistemic"):
        got = type(reward).__name__
        raise ValueError(f"planner=confidence: expected rewards with a posterior, agent.heads.name=laplace, got {got}")
    if options["name"] == "ensemble" and not hasattr(dynamics, "members"):
        got = type(dynamics).__name__
        raise ValueError(f"planner=ensemble: expected members, dynamics=ensemble, laplace or variational, got {got}")
    if options["name"] == "ensemble" and options.get("particles", dynamics.members) % dynamics.members:
        got = options["particles"]
        raise ValueError(f"planner.particles: expected a multiple of dynamics.members={dynamics.members}, got {got}")
    return components.make("worldmodel.planners", options)
