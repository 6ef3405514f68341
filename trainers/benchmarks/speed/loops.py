"""The loops that a run spends its time in, each as a call that can be timed alone."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.envs.protocol import Fault, Pool
from datamodules.envs.seeds import episode_seed
from datamodules.observation import empty
from datamodules.replay import Replay
from trainers.acting.agent_policy import AgentPolicy
from trainers.acting.exploration import Exploration
from trainers.benchmarks.shared.timing import autocast, contiguous_gather, filled_replay, training_step
from trainers.build.agent import build_agent
from trainers.process.clock import Clock
from trainers.run_folder.metrics import CSVMetrics
from trainers.training.graphed_gradients import record_graphs
from trainers.training.module import WorldModelModule
from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows
from worldmodel.model import Seen

ROWS = 5_000
# fused Adam reads weight, gradient and two moments, and writes all but the gradient
ADAM_ACCESSES = 7


@dataclass(frozen=True, slots=True)
class Loop:
    """What is timed."""

    name: str  # in the table
    call: Callable[[], object]
    prepare: Callable[[], object] = lambda: None  # before every call, not timed
    gb: float | None = None  # of memory that is read and written at least, where memory is the limit
    counts: bool = True  # whether it has products to count
    peer: tuple[str, Callable[[], object]] | None = None  # other code for the same work, and its name


class Machinery:
    """The parts of a run of the configuration: a module on a device, a replay of noise, one environment."""

    def __init__(self, config: dict[str, Any], pool: Pool, device: torch.device, folder: Path) -> None:
        self.config, self.pool, self.device, self.spec = config, pool, device, pool.spec
        self.module = WorldModelModule.of(config, build_agent(config, pool.spec).to(device))
        self.replay: Replay = filled_replay(pool.spec, ROWS)
        self.shape = config["data"]["batch"], config["data"]["length"]
        self.metrics = CSVMetrics(run_dir=folder)
        self.batch: Batch = self.replay.sample(*self.shape).to(device)
        self.module.count_rows(ROWS)

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that the run trains in."""
        return autocast(self.config, self.device)

    def no_gradients(self) -> None:
        """As before every update's backward pass."""
        self.module.zero_grad(set_to_none=True)

    def believe(self) -> Belief:
        """What the filter holds of the batch, without a graph."""
        with torch.no_grad(), self.autocast():
            return LatentRows.of(self.batch, self.module.agent.observe(self.batch)).belief


def loops(parts: Machinery) -> Iterator[Loop]:
    """In the order in which a run goes through them; gradients of `update` are those that `optimiser` takes."""
    yield _environment(parts)
    yield _sample(parts)
    yield from _learning(parts)
    update = training_step(parts.config, parts.module, parts.device)
    yield Loop("update", lambda: update(parts.batch))
    weights = sum(weight.numel() for weight in parts.module.parameters() if weight.requires_grad)
    optimizer: Any = parts.module.optimizers()
    gb = ADAM_ACCESSES * 4e-9 * weights
    yield Loop("optimiser", lambda: parts.module.apply_gradients(optimizer), gb=gb, counts=False)
    yield _log(parts)
    yield from _acting(parts)
    if parts.device.type == "cuda":
        yield from _replayed(parts)


def _environment(parts: Machinery) -> Loop:
    """A step of one environment in its process, its frame drawn and received."""
    pool, rng = parts.pool, np.random.default_rng(0)
    ended = [True]

    def open_episode() -> None:
        if ended.pop():
            pool.reset({0: episode_seed(0, 0, 0, 0)})

    def step() -> None:
        arrived = pool.step({0: rng.uniform(-1, 1, parts.spec.action_dim).astype(np.float32)})[0]
        if isinstance(arrived, Fault):
            raise RuntimeError(f"{arrived.kind}: {arrived.message}")
        ended.append(arrived.is_last)

    return Loop("env", step, open_episode, counts=False)


def _sample(parts: Machinery) -> Loop:
    """A batch from the replay, beside a copy of as many contiguous bytes."""
    gather = contiguous_gather(parts.spec, ROWS, *parts.shape)
    gb = 2e-9 * sum(rows.nbytes for rows in parts.batch.observation.values())
    peer = ("numpy gather", gather)
    return Loop("sample", lambda: parts.replay.sample(*parts.shape), gb=gb, counts=False, peer=peer)


def _learning(parts: Machinery) -> Iterator[Loop]:
    """What an update consists of, each with its backward pass alone."""
    agent, batch, belief = parts.module.agent, parts.batch, parts.believe()
    embed = agent.embed(batch).detach()
    latent = belief.latent.clone().requires_grad_()
    read = Belief(latent, belief.carry, belief.statistics, belief.valid)

    def backward(loss: Callable[[], Any]) -> Callable[[], None]:
        def call() -> None:
            with parts.autocast():
                loss().backward()

        return call

    def observe() -> Any:
        seen = agent.observe(batch)
        return seen.latent.float().sum() + sum(rows.float().sum() for rows in seen.statistics.values())

    def decode() -> Any:
        return torch.stack([*agent.objective.losses(agent, Seen(batch, embed, read)).values()]).sum()

    yield Loop("observe", backward(observe), parts.no_gradients)
    yield Loop("objective" if agent.decoder is None else "decode", backward(decode), parts.no_gradients)
    if agent.policy is not None:
        yield Loop("imagine", backward(lambda: agent.policy_losses(batch, belief).total), parts.no_gradients)


def _log(parts: Machinery) -> Loop:
    """An update's metrics added up, their means read, and one row of metrics.csv."""
    module = parts.module
    with parts.autocast():
        metrics = module.losses(parts.batch).metrics
    norms = [next(iter(metrics.values()))] * len(module.parameter_groups())

    def log() -> None:
        module.accumulate(metrics, norms)
        row = {"env_steps": 0, "decisions": 0, "updates": module.updates, "seconds": module.clock.total}
        parts.metrics.log_metrics({**row, **module.drain_metrics(), **module.clock.split()})

    return Loop("log", log, counts=False)


def _acting(parts: Machinery) -> Iterator[Loop]:
    """A plan of one environment, and the whole decision: frame in, filter, plan, action out."""
    agent, generator = parts.module.agent, torch.Generator().manual_seed(0)
    policy = AgentPolicy(agent, generators=[generator], clock=Clock(), exploration=Exploration(std=0.3, decisions=500))
    frame, first, ready = empty(parts.spec, 1), np.zeros(1, bool), np.ones(1, bool)
    latent = parts.believe().latent[:1, 0]
    warm = torch.zeros(1, agent.planner.horizon, parts.spec.action_dim, device=parts.device)

    def plan() -> None:
        with torch.inference_mode():
            agent.plan(latent, warm, [generator])

    yield Loop("plan", plan, agent.eval)
    yield Loop("decision", lambda: policy(frame, first, ready), agent.eval)


def _replayed(parts: Machinery) -> Iterator[Loop]:
    """Update and plan as CUDA graphs, by a second module like the first: `trainer.cuda_graphs=true`."""
    graphed = copy.copy(parts)
    agent = copy.deepcopy(parts.module.agent)
    graphed.module = WorldModelModule.of(parts.config, agent)
    update = training_step(parts.config, graphed.module, parts.device)
    record_graphs(graphed.module)
    yield Loop("update, graph", lambda: update(parts.batch), graphed.module.train, counts=False)
    plan, _ = _acting(graphed)
    yield Loop("plan, graph", plan.call, plan.prepare, counts=False)
