"""Learn from what the agent itself sees in an environment (Algorithm 26)."""

from contextlib import closing

from datamodules.envs.protocol import Fault
from trainers import build
from trainers.async_collect import AsyncCollector
from trainers.collect import Collector
from trainers.loop import Algorithm26
from trainers.session import Course, Session

COLLECTORS = {"synchronous": Collector, "asynchronous": AsyncCollector}


def make(*, session: Session) -> Course:
    """Environments, this rank's replay shard, and the loop that fills it."""
    config, stack, rank, data = session.config, session.stack, session.rank, session.config["data"]
    pool = stack.enter_context(build.open_pool(config, data["envs"], gpu=session.gpu))
    module = build.build_module(config, build.build_agent(config, pool.spec))
    trainer = session.trainer
    replay = build.build_replay(
        config,
        pool.spec,
        session.paths,
        rank=rank,
        world_size=trainer.world_size,
        ranks_here=trainer.world_size // trainer.num_nodes,
    )
    stack.enter_context(closing(replay))
    batches = build.build_data(config, replay, world_size=session.trainer.world_size)
    session.progress.print(replay.summary())
    collector = COLLECTORS[data["collection"]](
        pool,
        replay,
        envs=data["envs"],
        seed=config["seed"],
        rank=rank,
        clock=module.clock,
        noise_std=config["agent"]["explore_std"],
        report=lambda fault: session.progress.print(_line(fault)),
        limit=build.build_fault_limit(config),
        should_stop=session.interrupt.is_set,
    )
    stack.enter_context(closing(collector))
    cycle = Algorithm26(
        session.surroundings(pool.spec, session.evaluator()),
        collector,
        replay,
        env_steps=config["task"]["env_steps"],
        update_ratio=data["update_ratio"],
        seed_rounds=data["seed_episodes"],
    )
    return Course(module, batches, cycle, pool.spec, pool.renderer)


def _line(fault: Fault) -> str:
    return f"environment {fault.index}: {fault.kind}: {fault.message}; its episode was cut short, and it starts again"
