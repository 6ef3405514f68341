"""A bundle as a policy server: `python -m trainers.serve bundle=bundle/ port=8000 hz=20`."""

import asyncio
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainers.command.arguments import BadArguments, Command, Key
from trainers.command.entry import print_json

COMMAND = Command(
    name="serve",
    summary=(
        "Serves a bundle over the OpenPI policy WebSocket, a controller for each client. Once clients can connect, one "
        "JSON line with `port` is printed; Ctrl-C or SIGTERM ends it."
    ),
    keys={
        "bundle": Key("a folder that `trainers.export` wrote", required=True),
        "port": Key("0 takes a free one", "8000"),
        "host": Key("to listen at; other machines reach only what is not 127.0.0.1", "127.0.0.1"),
        "hz": Key("decisions per second of a client; the bundle's own by default"),
        "clients": Key("at most, at once", "8"),
        "max_bytes": Key("of a message; enough for one full HD frame of each camera by default"),
        "api_key_file": Key("a file with the key that clients must send; or set WORLDMODEL_API_KEY"),
        "parts": Key("a folder, or several as [a,b], with parts of your own that the bundle's agent is made of"),
        "planner": Key("process, which a watchdog can kill and start again, or inline", "process"),
        "realtime": Key("true: before all ordinary processes of this machine, which needs the permission", "false"),
    },
    first="bundle",
    word="BUNDLE",
    notes="""  bundle port=8000 hz=20
  bundle host=0.0.0.0 api_key_file=key.txt""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Serve until a signal comes; returns what is printed as the last line."""
    own = COMMAND.parse(arguments).own
    if missing := [name for name in ("msgpack", "websockets") if find_spec(name) is None]:
        raise BadArguments(f"serve needs {' and '.join(missing)}: pip install 'worldmodel[deploy]'")
    # torch takes seconds to load: help is answered before
    import torch

    from trainers.command.configuration import BadConfig, activate_parts, finite_number, true_or_false, whole_number
    from trainers.deployment.api_key import read_api_key
    from trainers.deployment.controller import PLANNERS
    from trainers.deployment.server import PolicyServer
    from trainers.process.realtime import realtime

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    port, clients = whole_number("port", own["port"], least=0), whole_number("clients", own["clients"])
    if port > 65535:
        raise BadConfig(f"port: expected 0 to 65535, got {port}")
    if not own["host"]:  # as of a variable that is not set: sockets would take it for all addresses
        raise BadConfig("host: expected a name or an address, 0.0.0.0 for all of this machine, got none")
    if own["planner"] not in PLANNERS:
        raise BadConfig(f"planner: expected {' or '.join(PLANNERS)}, got {own['planner']!r}")
    if own["parts"]:
        activate_parts([f"parts={own['parts']}"])
    folder = Path(own["bundle"]).expanduser()
    hz = None if own["hz"] is None else finite_number("hz", own["hz"], least=0.01)
    limit = None if own["max_bytes"] is None else whole_number("max_bytes", own["max_bytes"])
    with realtime(true_or_false("realtime", own["realtime"])):
        server = PolicyServer(
            folder,
            hz=hz,
            host=own["host"],
            port=port,
            api_key=read_api_key(own["api_key_file"]),
            clients=clients,
            max_bytes=limit,
            planner=own["planner"],
        )
        try:
            asyncio.run(_serve(server, {"bundle": str(folder), "host": own["host"], "hz": server.hz}))
        except OSError as error:
            key = "host" if isinstance(error, socket.gaierror) else "port"
            raise BadConfig(f"{key}: expected one to listen at, got {own['host']}:{port} ({error.strerror})") from error
        finally:
            server.close()
    return {"status": "stopped", "bundle": str(folder)}


async def _serve(server: Any, facts: dict[str, Any]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.run(lambda port: print_json({"status": "ready", "port": port, **facts}), stop)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
