"""The loop of a run that learns from recorded episodes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datamodules.data_module import WindowDataModule
from datamodules.formats.uri import parse
from datamodules.importer import import_once
from datamodules.recorded import Recorded
from trainers.acting.collect import damage
from trainers.acting.held_out import HeldOut
from trainers.acting.pictures import write_open_loop
from trainers.build.agent import build_agent
from trainers.build.data import build_data, build_sampler, require_length
from trainers.build.environments import open_pool
from trainers.command.configuration import BadConfig
from trainers.process.distributed import gather_over_ranks
from trainers.run_folder.find import data_uri
from trainers.training.loop import TrainingLoop
from trainers.training.module import WorldModelModule
from trainers.training.run_context import RunContext
from worldmodel.interfaces import Batch
from worldmodel.spec import DYNAMICS, EnvSpec, require_same

HELD_OUT_EPISODES = 32  # at most so many are measured on, evenly spread over all that are held out
PICTURED = 4
SHOWN = ("loss/image", "loss/reward", "loss/value")  # in the panel: the first that there is


class OfflineLoop(TrainingLoop):
    """Updates on windows of recorded episodes, with measurements on held-out ones.

    imported: what there is to say about where the episodes were read from. options: spec, evaluator of a TrainingLoop.
    """

    axis = "updates"

    def __init__(
        self,
        run: RunContext,
        module: WorldModelModule,
        data: WindowDataModule,
        recorded: Recorded,
        held_out: HeldOut | None,
        *,
        imported: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(run, module, data, **options)
        self.recorded, self.held_out, self.imported = recorded, held_out, imported
        self.every = {name: run.config["data"][f"{name}_every"] for name in ("log", "validate", "save")}
        self.updates_limit: int = run.config["data"]["updates"]
        self.next_validation, self.validated = self.every["validate"], False
        self.measured: dict[str, float] = {}
        run.progress.update(total_updates=self.updates_limit)

    def algorithm(self) -> Iterator[Batch]:
        """Learn to the next update after which there is something to do, do it, and measure at the end."""
        if not self.run.resumed:
            self.fit_normalisers()
        while self.updates_done < self.updates_limit:
            self.validated, self.evaluations.final_returns = False, None
            self.updates_due = self._next_stop() - self.updates_done
            yield from self.learn()
            if self.updates_done < self.updates_limit:
                if self.updates_done >= self.next_validation:
                    self.validate(final=False)
                self.evaluate_if_due()
                if self.updates_done % self.every["log"] == 0 and self.module.has_metrics:  # no measurement wrote them
                    self.run_log.row({})
                    self._report()
                if self.updates_done % self.every["save"] == 0:
                    self.save()
        if not self.validated:
            self.validate(final=True)
        self.evaluate_finally()
        self.save()

    def fit_normalisers(self) -> None:
        """Measure a sample of the rows."""
        self.module.fit_normalisers(self.recorded.sample(min(512, self.recorded.rows), 1))

    def _next_stop(self) -> int:
        following = [(self.updates_done // every + 1) * every for every in (self.every["log"], self.every["save"])]
        following += [self.next_validation] + ([self.evaluations.next_at] if self.evaluations.possible else [])
        return max(self.updates_done, min([*following, self.updates_limit]))

    def validate(self, *, final: bool) -> None:
        """Measure on rank 0; the others take its word."""
        self.run.progress.update(phase="validate")
        pictures: list[Path] = []
        if self.run.trainer.is_global_zero and self.held_out is not None:
            with self.module.measuring():
                agent = self.module.agent
                self.measured = self.held_out.measure(agent)
                name = "final" if final else f"{self.updates_done:09d}"
                batch, context = self.held_out.picture(PICTURED), self.held_out.context
                folder = self.run.paths.videos
                pictures = write_open_loop(folder, agent, batch, self.spec, context=context, name=name)
        self.measured = gather_over_ranks(self.measured)[0]
        self.validated = final
        self.next_validation = (self.updates_done // self.every["validate"] + 1) * self.every["validate"]
        self.run_log.row(self.measured)
        self.run_log.films(pictures)
        self._report()
        self.stop_if_asked()

    def _report(self) -> None:
        latest = self.module.latest
        self.run.progress.update(
            loss=next((latest[name] for name in SHOWN if name in latest), None), held_out=self._held_out_error()
        )

    def _held_out_error(self) -> float | None:
        return self.measured.get("held_out/image", self.measured.get("held_out/reward"))

    # --- results, saving and resuming -----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether all updates are done and measured."""
        return self.validated and (not self.evaluations.possible or bool(self.evaluations.final_returns))

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

    def deal_state(self, ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Every rank reads all rows: what was dealt out are the draws, which begin anew."""
        return self.rank_state()

    def restore(self, rank: dict[str, Any]) -> None:
        """Draw on; raises ReplayMismatch where other rows are recorded now."""
        self.recorded.load_state_dict(rank["recorded"])
        self.run.progress.update(updates=self.updates_done, held_out=self._held_out_error())

    def state_dict(self) -> dict[str, Any]:
        """With what was measured."""
        measured = {"next": self.next_validation, "validated": self.validated, "measured": self.measured}
        return {**super().state_dict(), "validation": measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """With what was measured."""
        state = state_dict["validation"]
        self.next_validation, self.validated, self.measured = state["next"], state["validated"], state["measured"]
        super().load_state_dict(state_dict)

    def _position_of_save(self) -> tuple[Any, ...]:
        return *super()._position_of_save(), self.validated, self.next_validation


def build_offline_loop(
    run: RunContext, build_module: Callable[[EnvSpec], WorldModelModule], kind: type[OfflineLoop] = OfflineLoop
) -> OfflineLoop:
    """A loop over the recorded episodes at data.uri; `build_module` makes the module for their spec."""
    config, data = run.config, run.config["data"]
    recorded, imported = _open(run, data_uri(data["uri"]))
    spec = replace(recorded.spec, terminates=recorded.terminates)
    module = build_module(spec)
    evaluator = None
    if data["evaluate"] and config["task"]["source"] is not None:
        with open_pool(config, 1, gpu=run.gpu) as pool:  # what cannot be acted in is refused before anything is learned
            require_same(recorded.spec, pool.spec, DYNAMICS, key="task", told="as recorded, or task=none")
        evaluator = run.evaluator(recorded.spec)
    options: dict[str, Any] = {"imported": imported, "spec": spec, "evaluator": evaluator}
    batches = build_data(config, recorded, world_size=run.trainer.world_size)
    return kind(run, module, batches, recorded, _held_out(recorded), **options)


def _open(run: RunContext, uri: str) -> tuple[Recorded, dict[str, Any]]:
    """Segments at `uri`, or a copy of another format's episodes in the cache, and what is to be said about them."""
    data, length = run.config["data"], run.config["data"]["length"]
    folder, imported = _segments(run, uri)
    sampler = build_sampler(run.config, rank=run.rank, generation=run.generation)
    shares = {"holdout": data["validation_share"], "damage_limit": data["damage_limit"]}
    recorded = Recorded(folder, sampler=sampler, across_episodes=data["across_episodes"], **shares)
    run.stack.callback(recorded.close)
    require_length(run.config, int(recorded.lengths.max(initial=0)))
    imported["short"] = 0 if data["across_episodes"] else int((recorded.lengths < length).sum())
    run.progress.print(_summary(recorded, uri, imported, length=length))
    if not run.resumed:
        _require_most(recorded, imported, limit=data["left_out_limit"], length=length)
    return recorded, imported


def _require_most(recorded: Recorded, imported: Mapping[str, Any], *, limit: float, length: int) -> None:
    """Raise BadConfig where a larger share of the episodes than `limit` is left out."""
    unreadable, short = imported.get("skipped", 0), imported["short"]
    left_out, episodes = unreadable + short, recorded.episodes + unreadable
    if left_out <= limit * episodes:
        return
    problem = next(iter(imported.get("problems", ())), "")
    reasons = [f"{unreadable} cannot be read ({problem})"] if unreadable else []
    reasons += [f"{short} are shorter than data.length={length}"] if short else []
    raise BadConfig(
        f"data.left_out_limit: expected at most {limit:.0%} of the episodes to be left out, got {left_out} of "
        f"{episodes}: {', '.join(reasons)}; a larger limit goes on with the rest"
    )


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
    problem = next(iter(imported.get("problems", ())), "")
    parts = [
        f"recorded: {recorded.rows:,} rows of {recorded.episodes:,} episodes from {uri}",
        f"{len(recorded.held_out)} held out",
        f"{short} shorter than {length} rows and left out" if short else "",
        f"{left_out} unreadable and left out: {problem}" if left_out else "",
        f"{recorded.damaged_blocks} damaged blocks with {recorded.lost_rows} rows left out"
        if recorded.damaged_blocks
        else "",
    ]
    return "; ".join(part for part in parts if part)


def _segments(run: RunContext, uri: str) -> tuple[Path, dict[str, Any]]:
    data, parsed = run.config["data"], parse(uri)
    if parsed.scheme == "segments":  # this project's own pairing needs no check
        if data["alignment"] is not None or data["actions"] is not None or parsed.options:
            raise BadConfig(f"data.alignment: expected none for segments, which have actions by arrival, got {uri}")
        return parsed.path, {}
    cache = Path(data["cache"] or "cache")
    given = {key: data[key] for key in ("alignment", "actions")}
    return import_once(uri, cache, **given, say=run.progress.print)


def make(*, run: RunContext) -> OfflineLoop:
    """A fresh agent on the episodes at data.uri."""
    config = run.config
    return build_offline_loop(run, lambda spec: WorldModelModule.of(config, build_agent(config, spec)))
