"""A worker with several lanes as the learner's process sees it."""

import json

import numpy as np
from numpy.typing import NDArray

from datamodules.envs import wire
from datamodules.envs.protocol import Step
from datamodules.envs.remote import RemoteEnv, Trouble, refuse_failure


class LaneRows(dict[int, Step]):
    """The rows of one answer by lane; the worker as a whole is never at an end."""

    is_last = False


class RemoteLanes(RemoteEnv):
    """A worker whose requests and answers concern any of its lanes at once."""

    def send_reset(self, seeds: dict[int, int], *, deadline: float) -> None:
        """Ask for a reset of {lane: seed}; raises Trouble as with one environment."""
        body = self._body(seeds)
        body["seed"][self._asked] = list(seeds.values())
        self._send(wire.OP_RESET, 0, body.tobytes(), deadline)

    def send_step(self, actions: dict[int, NDArray[np.float32]], *, deadline: float) -> None:
        """Ask for a step with checked actions {lane: [A]}; raises Trouble as with one environment."""
        body = self._body(actions)
        body["action"][self._asked] = list(actions.values())
        self._send(wire.OP_STEP, 0, body.tobytes(), deadline)

    def read_row(self, reply: wire.Reply) -> LaneRows:
        """The rows of an answer, with their own pixels; raises Trouble."""
        refuse_failure(reply)
        try:
            rows = zip(sorted(self._asked), json.loads(reply.text), strict=True)
            return LaneRows({lane: self._step(lane, *facts) for lane, facts in rows})
        except (ValueError, TypeError) as error:
            raise Trouble("garbage", f"expected a row for each of {len(self._asked)} lanes, got {error}") from error

    def _step(self, lane: int, is_first: bool, is_last: bool, is_terminal: bool, reward: float, env_steps: int) -> Step:
        return Step(self._pixels[lane].copy(), reward, is_first, is_last, is_terminal, env_steps)

    def _body_size(self) -> int:
        return self._lanes * wire.lane_type(self.spec.action_dim).itemsize

    def _body(self, asked: dict[int, object]) -> NDArray:
        self._asked = list(asked)
        body = np.zeros(self._lanes, wire.lane_type(self.spec.action_dim))
        body["asked"][self._asked] = True
        return body
