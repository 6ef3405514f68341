"""The robot's side of the socket: the server's actions while they come, then what is left of the last chunk, then stop.

It needs numpy, msgpack and websockets; the bundle is at the other end.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import ClientConnection, connect

from trainers.bundle.control_spec import ControlSpec, DeviceDiffers, require_rate
from trainers.deployment.action_gate import Action, ActionGate
from trainers.deployment.lateness import Lateness
from trainers.deployment.observation_gate import nothing_came, refused_age
from trainers.deployment.openpi_codec import BadMessage, pack, unpack
from trainers.deployment.status import Status
from trainers.deployment.telemetry import Telemetry
from trainers.process.garbage import short_collections
from worldmodel.limits import require_number

SHARE = 0.8  # of a period that a reply may take: the server's own share and the way
AGAIN_S = 0.5  # between two attempts to connect
NAN = float("nan")


class RemoteController:
    """A controller whose plans come from `trainers.serve`; `step` never raises and never waits longer than its budget.

    Args:
        address: ws://host:port.
        control: what the robot is, as its own copy of the bundle says: the server's must be equal.
        hz: decisions per second, at most the server's.
        api_key: of the server.
        budget_s: seconds from an observation to its action; 0.8 of a period by default.

    Raises:
        BadValue: for a rate or a budget out of range.
        DeviceDiffers: the server has another bundle's observations or actions, or is slower.
        BadMessage: what answers is another kind of server.
        OSError: there is no server at the start. Nothing later raises.
    """

    def __init__(
        self,
        address: str,
        control: ControlSpec,
        *,
        hz: float,
        api_key: str | None = None,
        budget_s: float | None = None,
    ) -> None:
        require_rate(hz)
        self._address, self.control = address, control
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self.period_s, self._gate, self.telemetry = 1 / hz, ActionGate(control), Telemetry()
        self.budget_s = SHARE * self.period_s if budget_s is None else budget_s
        require_number(budget_s=self.budget_s, above=0)
        self._lateness = Lateness.within(self.period_s, budget_s=self.budget_s)
        self._change = threading.Condition()
        self._request: tuple[int, bytes] | None = None
        self._reply: tuple[int, NDArray[Any], dict[str, Any]] | None = None
        self._asked, self._closed, self._faults, self.stopped = 0, False, 0, False
        self._again, self._released = True, False
        self._trouble = ""  # why there is no reply, for as long as there is none
        self._connection: ClientConnection | None = self._connect()
        self.reset()
        self._resources = ExitStack()
        self._resources.enter_context(short_collections())
        threading.Thread(target=self._talk, daemon=True).start()

    def reset(self) -> None:
        """Begin an episode; a latched stop stays, and what it holds."""
        self._number, self._again = 0, True
        self._chunk: NDArray[Any] | None = None
        self._chunk_number = -1
        if not self.stopped:
            self._gate.reset()

    def release(self) -> None:
        """End a latched stop by hand, the server's with the next request."""
        self.stopped, self._faults, self._released = False, 0, True

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._resources.close()
        with self._change:
            self._change.notify_all()
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> "RemoteController":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, observation: Any, stamp: float | None = None, sequence: int | None = None) -> tuple[Action, Status]:
        """The action for what is seen now, as `Controller.step`; never raises.

        What is not seen the server predicts; what it does not answer in time is bridged here.
        """
        start = time.monotonic()
        said: dict[str, Any] = {}
        seen = "none" if observation is None else "ok"
        message = ""
        try:
            # here, since this side's clock is not the server's
            if stamp is not None and observation is not None:
                refused = refused_age(stamp, self.control.limits.max_age_s)
                seen, message = (seen, "") if refused is None else (refused.wrong, str(refused))
            usable = observation if seen == "ok" else None
            # without a frame too: the server predicts it, and knows that a decision has passed
            reply = None if self.stopped else self._ask(usable, None if usable is None else sequence, start)
            if reply is None and not self.stopped:
                message = message or self._trouble or f"server: no reply in {1e3 * (time.monotonic() - start):.0f} ms"
            if reply is not None:
                actions, said = reply
                gave_up = said.get("source") in ("safe", "stopped")
                self._chunk, self._chunk_number = None if gave_up else actions, self._number
                # one stop for both sides: who sees to the robot asks this side alone
                self.stopped = said.get("source") == "stopped"
            offer = None if self.stopped else self._offer()
        except Exception as error:  # noqa: BLE001 - whatever it is, the robot needs an action
            offer, message = None, f"{type(error).__name__}: {error}"
        age = self._number - self._chunk_number if offer is not None else -1
        if offer is None:
            action, _ = self._gate.safe()
            self._faults += 1
            self.stopped = self.stopped or self._faults >= self.control.limits.faults
            message = message or str(said.get("message", "")) or (str(nothing_came()) if observation is None else "")
            source = "stopped" if self.stopped else "safe"
        else:
            action = offer
            self._faults = 0
            source = str(said.get("source", "plan")) if age == 0 else "shifted_plan"
        latency_s = time.monotonic() - start
        status = Status(
            number=self._number,
            source=source,
            observation=str(said.get("observation", seen)) if seen == "ok" else seen,
            late=latency_s > self.period_s,
            latency_ms=1e3 * latency_s,
            margin_ms=1e3 * (self.budget_s - latency_s),
            filter_ms=NAN,
            plan_age=age,
            faults=self._faults,
            limited=bool(said.get("limited", False)),
            predicted_return=_number(said.get("predicted_return")),
            prediction_error=_number(said.get("prediction_error")),
            disagreement=_number(said.get("disagreement")),
            alarm=bool(said.get("alarm", False)),
            message=message or str(said.get("message", "")) or self._trouble,
        )
        self._number += 1
        self.telemetry.add(status, action)
        return action, status

    def _offer(self) -> Action | None:
        """The chunk's action for now, within the robot's limits; None where the chunk is over or too old."""
        age = self._number - self._chunk_number
        if self._chunk is None or age >= len(self._chunk) or age > self.control.limits.plan_age:
            return None
        return self._gate.admit_native(self._chunk[age])

    def _ask(self, observation: Any, sequence: int | None, start: float) -> tuple[NDArray[Any], dict[str, Any]] | None:
        message = {} if observation is None else {"image": observation}
        if isinstance(observation, Mapping):
            message = dict(observation)
        message |= {"reset": True} if self._again else {}
        message |= {"release": True} if self._released else {}
        message |= {} if sequence is None else {"sequence": sequence}
        packed = pack(message)
        until = start + self.budget_s - self._lateness.reserve_s
        with self._change:
            self._asked += 1
            self._request = (self._asked, packed)
            self._change.notify_all()
            came = self._change.wait_for(
                lambda: self._reply is not None and self._reply[0] == self._asked, max(0.0, until - time.monotonic())
            )
            self._lateness.add(time.monotonic() - until)
            if not came or self._reply is None:
                return None
            self._again = self._released = False
            return self._reply[1], self._reply[2]

    def _talk(self) -> None:
        """Send the newest request and keep its reply, for ever; connect again where the line is cut."""
        while not self._closed:
            with self._change:
                self._change.wait_for(lambda: self._request is not None or self._closed)
                request, self._request = self._request, None
            if request is None:
                return
            try:
                if self._connection is None:
                    self._connection = self._connect()
                self._connection.send(request[1])
                answer = self._connection.recv(timeout=max(1.0, 10 * self.period_s))
                if not isinstance(answer, bytes):
                    raise BadMessage(str(answer))
                message = unpack(answer)
                actions = np.asarray(message["actions"])
                with self._change:
                    self._reply = (request[0], actions, dict(message.get("status", {})))
                    self._trouble = ""
                    self._change.notify_all()
            except Exception as error:  # noqa: BLE001 - whatever a server says, the next reply may be a good one
                self._trouble = f"server: {type(error).__name__}: {error}"
                if self._connection is not None:
                    threading.Thread(target=self._connection.close, daemon=True).start()
                self._connection = None
                time.sleep(AGAIN_S)

    def _connect(self) -> ClientConnection:
        connection = connect(
            self._address, compression=None, max_size=10_000_000, open_timeout=5, additional_headers=self._headers
        )
        try:
            said = _metadata(connection.recv(timeout=10))
            self._require_rate(said.pop("hz"))
            self.control.require_device(said)
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_rate(self, hz: Any) -> None:
        """A server's budget is a share of its own period: it would answer a faster robot too late every time."""
        if isinstance(hz, int | float) and hz * self.period_s < 1 - 1e-6:
            raise DeviceDiffers(f"hz: expected at most the server's {hz:g}, got {1 / self.period_s:g}")


def _metadata(frame: Any) -> dict[str, Any]:
    """What a server says of itself first: its device, and `hz`, None where it does not say."""
    said = unpack(frame) if isinstance(frame, bytes) else {}
    if not {"observation", "action"} <= said.keys():
        raise BadMessage("metadata: expected a message with observation and action first, as trainers.serve sends it")
    return {"observation": said["observation"], "action": said["action"], "hz": said.get("hz")}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else NAN
