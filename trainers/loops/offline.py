"""Learning from recorded episodes as a Lightning callback: when to measure, save and stop."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from datamodules.formats.uri import parse
from datamodules.importer import import_once
from datamodules.online import OnlineData
from datamodules.recorded import Recorded
from datamodules.storage.budget import DAMAGE_LIMIT
from trainers.acting.collect import damage
from trainers.acting.held_out import HeldOut
from trainers.acting.pictures import write_open_loop
from trainers.build.agent import build_agent
from trainers.build.data import build_sampler, prefetches
from trainers.build.environments import open_pool
from trainers.build.module import build_module
from trainers.command.configuration import BadConfig
from trainers.process.distributed import gather_over_ranks
from trainers.run_folder.loggers import log_films
from trainers.training.loop import LoopContext, TrainingLoop, fit_normalisers, own_random
from trainers.training.module import WorldModelModule
from trainers.training.run import RunContext, RunParts
from worldmodel.spec import EnvSpec

HELD_OUT_EPISODES = 32  # at most so many are measured on, evenly spread over all that are held out
PICTURED = 4
SHOWN = ("loss/image", "loss/reward", "loss/value")  # in the panel: the first that there is


class OfflineLoop(TrainingLoop):
    """Updates on windows of recorded episodes, with measurements on held-out ones, until `updates` are done.

    log_every, validate_every, save_every: updates between rows of metrics, measurements and checkpoints.
    imported: what there is to say about where the episodes were read from.
    """

    axis = "updates"

    def __init__(
        self,
        surroundings: LoopContext,
        recorded: Recorded,
        held_out: HeldOut | None,
        *,
        imported: dict[str, Any],
        updates: int,
        log_every: int,
        validate_every: int,
        save_every: int,
    ) -> None:
        super().__init__(surroundings)
        self.recorded, self.held_out, self.imported, self.updates = recorded, held_out, imported, updates
        self.log_every, self.validate_every, self.save_every = log_every, validate_every, save_every
        self.next_validation, self.validated = validate_every, False
        self.measured: dict[str, float] = {}
        self.progress.update(total_updates=updates)

    def begin(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Measure the frames."""
        fit_normalisers(module, self.recorded.sample(min(512, self.recorded.rows), 1))
        self.plan_updates()

    def between_updates(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Measure and evaluate where it is time to, log, save, and go on until it is over."""
        over = self.updates_done >= self.updates
        if over and self.validated and (self.evaluator is None or self.final_returns is not None):
            self.stop(trainer, module)
        elif over and self.validated:
            self.evaluate(trainer, module, self.final_episodes, final=True)
            if self.final_returns is None:  # broken off
                self.stop(trainer, module)
        elif over or self.updates_done >= self.next_validation:
            self._validate(trainer, module, final=over)
        elif self.evaluator is not None and self.updates_done >= self.next_evaluation:
            self.evaluate(trainer, module, self.evaluation_episodes, final=False)
        else:
            self._go_on(trainer, module)

    def _go_on(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        if self.updates_done % self.log_every == 0 and module.has_metrics:
            self.log_row(trainer, module, {})
            self._report(module)
        saves = self.updates_done % self.save_every == 0
        self.plan_updates()
        if saves:
            self.save(trainer, module)
        self.progress.update(phase="learn")

    def plan_updates(self) -> None:
        """To the next update after which there is something to do."""
        self.validated, self.final_returns = False, None
        every = [self.log_every, self.validate_every, self.save_every]
        every += [self.evaluate_every] if self.evaluator is not None else []
        following = [(self.updates_done // n + 1) * n for n in every]
        self.updates_due += min([*following, self.updates]) - self.updates_done

    def _validate(self, trainer: pl.Trainer, module: WorldModelModule, *, final: bool) -> None:
        """Measure on rank 0; the others take its word."""
        self.progress.update(phase="validate")
        pictures = []
        if trainer.is_global_zero and self.held_out is not None:
            module.eval()
            with module.clock.measure("evaluation"), own_random(module.device):
                self.measured = self.held_out.measure(module.agent)
                name = "final" if final else f"{self.updates_done:09d}"
                batch, context = self.held_out.picture(PICTURED), self.held_out.context
                spec, folder = self.spec, self.paths.videos
                pictures = write_open_loop(folder, module.agent, batch, spec, context=context, name=name)
            module.train()
        self.measured = gather_over_ranks(self.measured)[0]
        self.validated, self.next_validation = (
            final,
            (self.updates_done // self.validate_every + 1) * self.validate_every,
        )
        self.log_row(trainer, module, self.measured)
        log_films(trainer.loggers, pictures, axis=self.axis, position=self.position)
        self._report(module)

    def _report(self, module: WorldModelModule) -> None:
        latest = module.latest
        self.progress.update(
            loss=next((latest[name] for name in SHOWN if name in latest), None), held_out=self._held_out_error()
        )

    def _held_out_error(self) -> float | None:
        return self.measured.get("held_out/image", self.measured.get("held_out/reward"))

    # --- results, saving and resuming -----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether all updates are done and measured."""
        return self.validated and (self.evaluator is None or bool(self.final_returns))

    def results(self) -> dict[str, Any]:
        """The data's size and what of it was left out, and the errors on held-out episodes."""
        recorded = self.recorded
        size = {"rows": recorded.rows, "held_out": len(recorded.held_out), "damaged_blocks": recorded.damaged_blocks}
        errors = {name.partition("/")[2]: value for name, value in self.measured.items()}
        return {"data": {**size, **self.imported}, "held_out": errors}

    @property
    def counters(self) -> dict[str, int]:
        """The recorded rows', which every rank reads alike: nothing is added to them."""
        recorded = self.recorded
        decisions = recorded.rows - recorded.episodes
        size = {"env_steps": recorded.env_steps, "decisions": decisions, "episodes": recorded.episodes}
        return size | damage(recorded.damaged_blocks, recorded.lost_rows)

    def restore_counters(self, counters: dict[str, int]) -> None:
        """Nothing: they are counted from what is recorded."""

    def rank_state(self) -> dict[str, Any]:
        """Where the draws of windows stand."""
        return {"recorded": self.recorded.state_dict()}

    def restore(self, rank: dict[str, Any]) -> None:
        """Draw on; raises ReplayMismatch where other rows are recorded now."""
        self.recorded.load_state_dict(rank["recorded"])
        self.progress.update(updates=self.updates_done, held_out=self._held_out_error())

    def state_dict(self) -> dict[str, Any]:
        """With what was measured."""
        measured = {"next": self.next_validation, "validated": self.validated, "measured": self.measured}
        return {**super().state_dict(), "validation": measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """With what was measured."""
        state = state_dict["validation"]
        self.next_validation, self.validated, self.measured = state["next"], state["validated"], state["measured"]
        super().load_state_dict(state_dict)

    def _place(self, updates: int) -> tuple[Any, ...]:
        return *super()._place(updates), self.validated, self.next_validation


def lead(
    session: RunContext, build_module: Callable[[EnvSpec], WorldModelModule], cycle: type[OfflineLoop] = OfflineLoop
) -> RunParts:
    """A course over the recorded episodes at data.uri, for the module that is built for their spec."""
    config, data = session.config, session.config["data"]
    recorded, imported = _open(session, data["uri"])
    module = build_module(recorded.spec)
    evaluator = None
    if data["evaluate"] and config["task"]["source"] is not None:
        _require_task_fits(session, recorded.spec)
        evaluator = session.evaluator()
    callback = cycle(
        session.surroundings(recorded.spec, evaluator),
        recorded,
        _held_out(recorded),
        imported=imported,
        updates=data["updates"],
        log_every=data["log_every"],
        validate_every=data["validate_every"],
        save_every=data["save_every"],
    )
    return RunParts(module, _batches(session, recorded), callback, recorded.spec, "none")


def _open(session: RunContext, uri: str) -> tuple[Recorded, dict[str, Any]]:
    """Segments at `uri`, or a copy of another format's episodes in the cache, and what is to be said about them."""
    data, length = session.config["data"], session.config["data"]["length"]
    folder, imported = _segments(session, uri)
    sampler = build_sampler(session.config, rank=session.rank)
    shares = {"holdout": data["validation_share"], "damage_limit": data.get("damage_limit", DAMAGE_LIMIT)}
    recorded = Recorded(folder, sampler=sampler, **shares)
    session.stack.callback(recorded.close)
    longest = int(recorded.lengths.max(initial=0))
    if length > longest:
        raise BadConfig(f"data.length: expected at most the {longest} rows of the longest episode, got {length}")
    imported["short"] = int((recorded.lengths < length).sum())
    session.progress.print(_summary(recorded, uri, imported, length=length))
    return recorded, imported


def _batches(session: RunContext, recorded: Recorded) -> OnlineData:
    """Windows of the episodes that are not held out; `data.batch` is shared out over the ranks."""
    batch, length, ranks = session.config["data"]["batch"], session.config["data"]["length"], session.trainer.world_size
    if batch % ranks:
        raise BadConfig(f"data.batch: expected a multiple of {ranks} ranks, got {batch}")
    return OnlineData(recorded, batch=batch // ranks, length=length, prefetch=prefetches(session.config))


def _held_out(recorded: Recorded) -> HeldOut | None:
    """What is measured on, None where nothing is held out."""
    numbers = [number for number in recorded.held_out if recorded.lengths[number] > 1]
    if not numbers:
        return None
    count = min(len(numbers), HELD_OUT_EPISODES)
    return HeldOut([recorded.trajectory(numbers[i * len(numbers) // count]) for i in range(count)])


def _summary(recorded: Recorded, uri: str, imported: Mapping[str, Any], *, length: int) -> str:
    """One line for the start of a run: what is learned from, and what is not."""
    short, left_out = imported["short"], imported.get("skipped", 0)
    parts = [
        f"recorded: {recorded.rows:,} rows of {recorded.episodes:,} episodes from {uri}",
        f"{len(recorded.held_out)} held out",
        f"{short} shorter than {length} rows and left out" if short else "",
        f"{left_out} unreadable and left out" if left_out else "",
        f"{recorded.damaged_blocks} damaged blocks with {recorded.lost_rows} rows left out"
        if recorded.damaged_blocks
        else "",
    ]
    return "; ".join(part for part in parts if part)


def _require_task_fits(session: RunContext, spec: EnvSpec) -> None:
    """Raise BadConfig where the task that is to be acted in is not what was recorded, before anything is learned."""
    with open_pool(session.config, 1, gpu=session.gpu) as pool:
        found = pool.spec
    for key in ("observed", "action_dim", "action_repeat"):
        expected, got = getattr(spec, key), getattr(found, key)
        if expected != got:
            raise BadConfig(
                f"task: expected an environment with {key} {expected} as recorded, got {got}; task=none does without"
            )


def _segments(session: RunContext, uri: str) -> tuple[Path, dict[str, Any]]:
    data, parsed = session.config["data"], parse(uri)
    if parsed.scheme == "segments":  # this project's own pairing needs no check
        if data["alignment"] is not None or data.get("actions") is not None or parsed.options:
            raise BadConfig(f"data.alignment: expected none for segments, which have actions by arrival, got {uri}")
        return parsed.path, {}
    cache = Path(data["cache"] or "cache")
    given = {key: data.get(key) for key in ("alignment", "actions")}
    return import_once(uri, cache, **given, say=session.progress.print)


def make(*, session: RunContext) -> RunParts:
    """A fresh agent on the episodes at data.uri."""
    config = session.config
    return lead(session, lambda spec: build_module(config, build_agent(config, spec)))
