"""Collection while the learner learns: a thread plays the next round with the weights that were last published."""

import copy
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from datamodules.rollout import Episode
from trainers.acting.agent_policy import AgentPolicy
from trainers.acting.collect import Collector
from trainers.process.clock import Clock
from trainers.process.interrupt import Interrupted
from worldmodel.interfaces import Acts

# how often a wait looks whether it is to stop
LOOK_S = 0.2
Round = tuple[list[Episode], AgentPolicy]


class AsyncCollector(Collector):
    """A Collector that plays at most one round ahead, with its own copy of the agent.

    Weights are published when a round begins, so they are at most one round old. `collect` waits for the round under
    way: the learner never runs ahead of its data, and collection never by more than that round, so the updates per
    decision are what the configuration says. Rows are stored as they arrive; which of them a batch can already
    contain depends on timing, so runs do not repeat bit for bit. What the thread raises, `collect` or `stop_round`
    raises. Once should_stop() holds, the round that `collect` waits for is broken off, and no other begins.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._actor: Any = None  # a copy of the agent, with its weights as they were when the round began
        self._stop = threading.Event()
        self._under_way: Future[Round] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="collect", initializer=_tune_thread)

    def collect(self, agent: Acts) -> Round:
        """The round under way, or one that is played now; without episodes if it was broken off."""
        if self._under_way is None:
            self._start_round(agent)
        assert self._under_way is not None
        with self._clock.measure("env"):
            while not self._should_stop() and not wait([self._under_way], timeout=LOOK_S).done:
                pass
            if not self._under_way.done():
                self._stop.set()
            played = self._under_way.result()
        self._under_way = None
        self._close_open()
        self._count_round()
        return played

    def start_next_round(self, agent: Acts) -> None:
        """Publish the agent's weights and begin the next round."""
        if not self._should_stop():
            self._start_round(agent)

    def _start_round(self, agent: Any) -> None:
        assert self._under_way is None, "one round at a time"
        if self._actor is None:
            self._actor = copy.deepcopy(agent).eval().requires_grad_(False)
        self._actor.load_state_dict(agent.state_dict())
        self._stop.clear()
        self._under_way = self._thread.submit(self._play, self._policy(self._actor, Clock()))

    def stop_round(self) -> None:
        """Break off the round under way: its episodes are closed as truncated and counted."""
        if self._under_way is not None:
            self._stop.set()
            self._under_way.result()
            self._under_way = None
        self._close_open()
        self._count_round()

    def close(self) -> None:
        """End the thread, whatever it has raised."""
        self._stop.set()
        self._thread.shutdown()

    def _play(self, policy: AgentPolicy) -> Round:
        try:
            return self._round(policy, self._raise_if_stopping), policy
        except Interrupted:
            return [], policy

    def _raise_if_stopping(self) -> None:
        if self._stop.is_set():
            raise Interrupted


def _tune_thread() -> None:
    # one core: planning is many small operations, and the learner has the others
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # a thread's own setting
