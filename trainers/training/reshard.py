"""A resumed run's replay for another number of ranks."""

from datamodules.reshard import OldShards, reshard
from datamodules.windows import no_window
from trainers.build.data import across_episodes, shard_capacity
from trainers.training.training_run import TrainingRun
from worldmodel.spec import EnvSpec


def reshard_replay(run: TrainingRun, spec: EnvSpec) -> None:
    """Write this rank's shard from those of the checkpoint's ranks, which were more or fewer.

    Raises:
        ReplayEmpty: a rank would have no window to learn from.
    """
    config, data, ranks = run.config, run.config["data"], run.trainer.world_size
    states = [rank["replay"] for rank in run.former_ranks]
    folders = [run.paths.shard(rank, generation=run.generation - 1) for rank in range(len(states))]
    resharded = reshard(
        OldShards(folders, states, spec=spec, damage_limit=data["damage_limit"]),
        run.paths.shard(run.rank, generation=run.generation),
        spec=spec,
        shard=run.rank,
        shards=ranks,
        streams=data["envs"],
        capacity=shard_capacity(config, spec, ranks=ranks),
        flush_rows=data["flush_rows"],
    )
    run.progress.print(f"replay: dealt out from {len(states)} to {ranks} ranks: {resharded}")
    if resharded.longest < data["length"] and not across_episodes(config):
        raise no_window(data["length"], rows=resharded.rows, longest=resharded.longest)
