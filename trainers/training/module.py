"""The LightningModule: one optimiser over all of an agent's losses, by manual optimisation."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor

from trainers.build.agent import require_fit
from trainers.process.clock import Clock
from trainers.process.distributed import average_over_ranks, broadcast_from_rank_zero, rank_count
from trainers.run_folder.conversion import FORMAT
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.capabilities import CountsRows, HoldsSamples
from worldmodel.errors import BadValue, UserError
from worldmodel.interfaces import Batch, Loss


class NonFiniteTraining(UserError):
    """Gradients were not finite in too many updates in a row."""


class WorldModelModule(pl.LightningModule):
    """Algorithm 26, line 3: every batch is one update of model, value and policy together.

    learning_rates: by the agent's parameter groups. grad_clip: largest gradient norm of each group.
    An update whose gradients are not finite is skipped and counted; `patience` of them in a row end the run.
    """

    def __init__(
        self,
        agent: LatentMPC,
        *,
        learning_rates: Mapping[str, float],
        grad_clip: float = 100.0,
        eps: float = 1e-5,
        patience: int = 20,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.agent, self.grad_clip, self.eps, self.patience = agent, grad_clip, eps, patience
        self.learning_rates = dict(learning_rates)
        self.clock = Clock()
        self.gradients: Callable[[Batch], Loss] = self.compute_gradients
        self.updates = 0
        self._skips = torch.zeros(3, dtype=torch.int64)  # skipped updates: all, in a row up to now, most in a row
        self.latest: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    @classmethod
    def of(cls, config: Mapping[str, Any], agent: LatentMPC) -> Self:
        """The module around an agent, as a configuration's `optimizer` says."""
        options = config["optimizer"]
        return cls(agent, learning_rates=options["learning_rates"], grad_clip=options["grad_clip"], eps=options["eps"])

    def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """The weights that are trained, by the loss that trains them."""
        return self.agent.parameter_groups()

    def losses(self, batch: Batch) -> Loss:
        """What an update minimises."""
        return self.agent.losses(batch)

    def count_rows(self, rows: int) -> None:
        """Tell the parts that weigh a prior over weights against data how many recorded rows there are."""
        for part in (self.agent.dynamics, self.agent.reward):
            if isinstance(part, CountsRows):
                part.count_rows(rows)

    def fit_normalisers(self, rows: Batch) -> None:
        """Measure what is observed at the run's beginning; all ranks take rank 0's statistics."""
        self.agent.norm.fit({name: part.flatten(0, 1) for name, part in rows.observation.items()})
        for buffer in self.agent.norm.buffers():
            broadcast_from_rank_zero(buffer)

    @contextmanager
    def measuring(self) -> Iterator[Clock]:
        """The agent is judged, not taught: what is drawn within changes nothing outside, and the time is booked."""
        self.eval()
        devices = [self.device] if self.device.type == "cuda" else []
        with self.clock.measure("evaluation"), torch.random.fork_rng(devices=devices):
            yield self.clock
        self.train()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam with one parameter group for each of the agent's."""
        groups = self.parameter_groups()
        missing = groups.keys() - self.learning_rates.keys()
        if missing:
            raise BadValue(f"optimizer.learning_rates: expected a rate for {sorted(groups)}, missing {sorted(missing)}")
        rates = [{"params": weights, "lr": self.learning_rates[name]} for name, weights in groups.items()]
        return torch.optim.Adam(rates, eps=self.eps, fused=True)

    def on_train_start(self) -> None:
        """Give restored moments the layout of their weights: fused Adam pairs elements by their place in memory."""
        optimizer: Any = self.optimizers()
        for name, group in zip(self.parameter_groups(), optimizer.param_groups, strict=True):
            group["lr"], group["eps"] = self.learning_rates[name], self.eps  # the config's, also on a resumed run
        for weight, state in optimizer.state.items():
            for name, moment in state.items():
                if moment.shape == weight.shape:
                    state[name] = torch.empty_like(weight, dtype=moment.dtype).copy_(moment)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor | None]:
        """One update; returns the error [B] of each window."""
        loss = self.gradients(batch)
        norms = self.apply_gradients(self.optimizers())  # type: ignore[arg-type]  # Lightning's wrapper of it
        if rank_count() > 1:  # DDP sends buffers before its first forward alone, under manual optimisation
            statistics, samples = self.buffers_by_use
            average_over_ranks([self.get_buffer(name) for name in statistics])
            for name in samples:
                broadcast_from_rank_zero(self.get_buffer(name))
        self.updates += 1
        self.accumulate(loss.metrics, norms)
        return {"error": loss.error}

    def compute_gradients(self, batch: Batch, *, in_place: bool = False) -> Loss:
        """The gradients of an update, left in the weights: in memory of this update's, or `in_place` in that of before.

        `gradients`, which an update calls, is this or what stands for it.
        """
        optimizer: Any = self.optimizers()
        loss = self.losses(batch)
        optimizer.zero_grad(set_to_none=not in_place)
        self.manual_backward(loss.total)
        return loss

    @cached_property
    def buffers_by_use(self) -> tuple[list[str], list[str]]:
        """Names of what the agent measures as it learns, such as the spread of returns, and of samples that it keeps
        from one update to the next, of which there is no mean."""
        holders = {name for name, part in self.named_modules() if isinstance(part, HoldsSamples)}
        samples = [name for name, _ in self.named_buffers() if name.rpartition(".")[0] in holders]
        others = self.state_dict().keys() - set(samples)
        return [n for n, rows in self.named_buffers() if n in others and rows.is_floating_point()], samples

    def apply_gradients(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        """Clip and step unless a gradient is not finite; the gradient norm of each group before clipping."""
        norms = [
            torch.nn.utils.clip_grad_norm_(group["params"], self.grad_clip, foreach=True)
            for group in optimizer.param_groups
        ]
        bad = ~torch.stack(norms).isfinite().all()
        adam: Any = self.optimizers(use_pl_optimizer=False)
        adam.found_inf = bad.float()  # with which fused Adam leaves everything as it was
        optimizer.step()
        self.agent.after_step()
        total, row, longest = self._skips.to(bad.device)
        row = (row + 1) * bad
        self._skips = torch.stack([total + bad, row, torch.maximum(longest, row)])
        if bad.device.type == "cpu":  # elsewhere the host would wait for the device's queue: with the next metrics
            self._require_finite()
        return norms

    @property
    def skipped(self) -> int:
        """Updates whose gradients were not finite."""
        return int(self._skips[0])

    @property
    def has_metrics(self) -> bool:
        """Whether there were updates since the last call of `drain_metrics`."""
        return self._count > 0

    def drain_metrics(self) -> dict[str, float]:
        """Means over the updates since the last call: one synchronisation with the device, not one per update."""
        totals = torch.stack([*self._sums.values()]).tolist() if self._sums else []
        means = {name: total / self._count for name, total in zip(self._sums, totals, strict=True)}
        self._require_finite()
        self._sums, self._count = {}, 0
        self.latest = means or self.latest
        return means

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Counters, clock and random state travel with the weights."""
        checkpoint["format"] = FORMAT
        checkpoint["module"] = {
            "updates": self.updates,
            "skipped": self._skips.tolist(),
            "clock": self.clock.state_dict(),
            "undrained": [self._sums, self._count],
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue counting; a ValueError names the first weight that does not fit."""
        require_fit(self.state_dict(), checkpoint["state_dict"])
        state = checkpoint["module"]
        # the rows of skipped updates begin anew: a run that they ended may go on with lower rates
        self.updates, self._skips = state["updates"], torch.tensor([state["skipped"][0], 0, 0])
        self._sums, self._count = state["undrained"]
        self.clock.load_state_dict(state["clock"])

    def _require_finite(self) -> None:
        if int(self._skips[2]) >= self.patience:
            raise NonFiniteTraining(f"gradients were not finite in {self.patience} updates in a row: lower the rates")

    def accumulate(self, metrics: Mapping[str, Tensor], norms: list[Tensor]) -> None:
        """Add an update's metrics and gradient norms to what `drain_metrics` takes the means of."""
        named = {**metrics, **{f"grad_norm/{name}": n for name, n in zip(self.parameter_groups(), norms, strict=True)}}
        for name, number in named.items():
            number = number.float()  # not in bfloat16, whose sums stop growing after a hundred
            self._sums[name] = self._sums[name] + number if name in self._sums else number
        self._count += 1
