"""The learned world that planners see, its returns of candidates as one launch of a CUDA graph."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from worldmodel.agents.while_unchanged import WhileUnchanged
from worldmodel.cuda_graphs import Graphed, Recorder, Tensors
from worldmodel.simulators.latent import LatentSimulator


class GraphedWorld:
    """Keeps one world for good: its recording reads the weights of the moment, and packs them anew at each replay."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._world: LatentSimulator | None = None

    def get(self, tensors: Iterable[Tensor], make: Callable[[], LatentSimulator]) -> LatentSimulator:
        """The world that `make` makes; `tensors`, which it is made of, must stay where they are in memory."""
        if self._world is None:

            def returns(*, latent: Tensor, actions: Tensor) -> Tensors:
                with torch.no_grad():
                    return {"returns": make().returns(latent, actions)}

            graphed = Graphed(returns, self._recorder)
            self._world = make()
            self._world.score_with(lambda latent, actions: graphed(latent=latent, actions=actions)["returns"])
        return self._world

    def __reduce__(self) -> tuple[type[WhileUnchanged[LatentSimulator]], tuple[()]]:
        """Copies and pickles, whose weights lie elsewhere, have no recording."""
        return WhileUnchanged, ()
