"""Learning from recorded episodes as a Lightning callback: when to measure, save and stop."""

from typing import Any

import pytorch_lightning as pl

from datamodules.recorded import Recorded
from trainers.artifacts import write_open_loop
from trainers.collect import gather_over_ranks
from trainers.cycle import Cycle, Surroundings, fit_pixels, own_random
from trainers.held_out import HeldOut
from trainers.loggers import log_films
from trainers.module import WorldModelModule
from trainers.tally import damage

PICTURED = 4
SHOWN = ("loss/image", "loss/reward", "loss/value")  # in the panel: the first that there is


class Offline(Cycle):
    """Updates on windows of recorded episodes, with measurements on held-out ones, until `updates` are done.

    log_every, validate_every, save_every: updates between rows of metrics, measurements and checkpoints.
    imported: what there is to say about where the episodes were read from.
    """

    axis = "updates"

    def __init__(
        self,
        surroundings: Surroundings,
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
        self.progress.update(total_updates=updates, env_steps=recorded.env_steps)

    def begin(self, trainer: pl.Trainer, module: WorldModelModule) -> None:
        """Measure the frames."""
        fit_pixels(module, self.recorded.sample(min(512, self.recorded.rows), 1))
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
