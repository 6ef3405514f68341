"""Learning and planning by CUDA graphs: an update's gradients are one launch, and so are the returns of candidates."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from trainers.training.module import WorldModelModule
from worldmodel.agents.graphed_world import GraphedWorld
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.cuda_graphs import CudaRecorder, Graphed, Recorder, Tensors
from worldmodel.errors import BadValue
from worldmodel.interfaces import Batch, Loss
from worldmodel.transfer import send

OBSERVED = "observation/"


def require_recordable(agent: LatentMPC) -> None:
    """Raises BadValue for an agent whose updates are not the same operations every time."""
    if agent.policy is not None and agent.policy.varies_by_update:
        kind = type(agent.policy).__name__
        raise BadValue(f"trainer.cuda_graphs: expected a policy whose updates are all alike, got {kind}")


def record_graphs(module: WorldModelModule, recorder: Recorder | None = None) -> None:
    """Have a module's updates and its agent's plans replay recordings; call once the weights stay where they are.

    What the optimiser does with the gradients is no part of them, nor are a plan's noise and its elites.
    recorder: of the module's device; None for CUDA's.
    """
    require_recordable(module.agent)
    recorder = CudaRecorder(next(module.parameters()).device) if recorder is None else recorder
    module.agent.world = GraphedWorld(recorder)
    weights = [weight for group in module.parameter_groups().values() for weight in group]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)  # where every update finds them
    module.gradients = GraphedGradients(partial(module.compute_gradients, in_place=True), recorder)


class GraphedGradients:
    """`compute`, which leaves gradients in the weights in place, recorded.

    Args:
        compute: a batch to its loss; the same operations for every batch of the same shapes.
        recorder: of the device that weights and batches are on.
    """

    def __init__(self, compute: Callable[[Batch], Loss], recorder: Recorder) -> None:
        self._compute = compute
        self._graphed = Graphed(self._run, recorder)
        self._metrics: list[str] = []  # names, in the order of the recording

    def __call__(self, batch: Batch) -> Loss:
        """The loss of a batch, its gradients in the weights."""
        results = self._graphed(**to_tensors(batch))
        metrics = dict(zip(self._metrics, results["metrics"].unbind(), strict=True))
        return Loss(results["total"], metrics, results.get("error"))

    def _run(self, **tensors: Tensor) -> Tensors:
        loss = self._compute(to_batch(tensors))
        self._metrics = list(loss.metrics)
        # as one tensor: one copy out of the recording's memory
        metrics = torch.stack([number.float() for number in loss.metrics.values()])
        error = {} if loss.error is None else {"error": loss.error}
        return {"total": loss.total.detach(), "metrics": metrics, **error}


def to_tensors(batch: Batch) -> Tensors:
    """A batch as tensors by name, all on the device of its rewards."""
    observed = {OBSERVED + name: rows for name, rows in batch.observation.items()}
    windows = {} if batch.windows is None else {"windows": send(batch.windows, batch.reward.device)}
    return {**observed, **batch.columns, **windows}


def to_batch(tensors: Tensors) -> Batch:
    """The batch of `to_tensors`."""
    observed = {name.removeprefix(OBSERVED): rows for name, rows in tensors.items() if name.startswith(OBSERVED)}
    return Batch(observed, **{name: rows for name, rows in tensors.items() if not name.startswith(OBSERVED)})
