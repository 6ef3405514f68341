"""Replay, samplers and batches from a configuration."""

from collections.abc import Mapping
from typing import Any

import torch

from datamodules.data_module import BatchSource, WindowDataModule
from datamodules.replay import Replay
from datamodules.storage.budget import memory_budget, rows_of
from datamodules.windows import Sampler
from trainers.command import registry
from trainers.process.distributed import rank_seed
from trainers.run_folder.paths import RunPaths
from worldmodel.errors import BadValue
from worldmodel.spec import EnvSpec

Config = Mapping[str, Any]


def build_sampler(config: Config, *, rank: int, generation: int = 0) -> Sampler:
    """What chooses this rank's windows; each generation of ranks draws anew."""
    seed = config["seed"] * 1009 + rank
    seed = rank_seed(seed, rank, generation=generation) if generation else seed
    return registry.make("datamodules.samplers", config["data"]["sampler"], key="data.sampler", seed=seed)


def build_replay(
    config: Config,
    spec: EnvSpec,
    paths: RunPaths,
    *,
    rank: int,
    world_size: int,
    ranks_here: int = 1,
    generation: int = 0,
) -> Replay:
    """This rank's shard of the replay, on disk in the run folder; `ranks_here` ranks share this machine."""
    data = config["data"]
    return Replay(
        spec=spec,
        capacity=shard_capacity(config, spec, ranks=world_size),
        streams=data["envs"],
        folder=paths.shard(rank, generation=generation),
        sampler=build_sampler(config, rank=rank, generation=generation),
        flush_rows=data["flush_rows"],
        memory_limit_bytes=memory_budget(data["memory_budget"]) // ranks_here,
        processes=ranks_here,
        damage_limit=data["damage_limit"],
        across_episodes=data["across_episodes"],
    )


def shard_capacity(config: Config, spec: EnvSpec, *, ranks: int) -> int:
    """Rows of each rank's shard, which hold two episodes of each environment; a ValueError says how many that are."""
    data, longest = config["data"], spec.episode_decisions + 1
    share = rows_of(data["capacity"], spec) // ranks
    if share < 2 * longest * data["envs"]:
        least = 2 * longest * data["envs"] * ranks
        raise BadValue(
            f"data.capacity: expected at least {least} rows (two episodes per environment), got {data['capacity']}"
        )
    return share


def require_length(config: Config, longest: int) -> None:
    """Raise BadValue where windows would be longer than the longest episode, and may not run over its end."""
    length = config["data"]["length"]
    if length > longest and not config["data"]["across_episodes"]:
        raise BadValue(f"data.length: expected at most the {longest} rows of an episode, got {length}")


def build_data(config: Config, source: BatchSource, *, world_size: int) -> WindowDataModule:
    """Batches of this rank's windows; `data.batch` is shared out over the ranks."""
    batch, ahead = config["data"]["batch"], config["data"]["prefetch"]
    if batch % world_size:
        raise BadValue(f"data.batch: expected a multiple of {world_size} ranks, got {batch}")
    prefetch = torch.cuda.is_available() if ahead == "auto" else ahead
    return WindowDataModule(source, batch=batch // world_size, length=config["data"]["length"], prefetch=prefetch)
