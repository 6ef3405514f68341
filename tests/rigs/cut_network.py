"""A way to a local port that can be cut or stalled: a thread of its own passes bytes on."""

import asyncio
import threading
from typing import Any


class CutNetwork:
    """Passes connections on from `port` to another.

    Args:
        to: the port of a server on this machine.
    """

    def __init__(self, to: int) -> None:
        self._to, self._writers = to, set[asyncio.StreamWriter]()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def cut(self) -> None:
        """Break every connection and let no new one in."""
        self._call(self._set(False, hang_up=True))

    def stall(self) -> None:
        """Pass nothing on, while everything stays connected."""
        self._call(self._set(False, hang_up=False))

    def heal(self) -> None:
        """Go on."""
        self._call(self._set(True, hang_up=False))

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _call(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._healed = asyncio.Event()
        self._healed.set()
        self._refuse = False
        server = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()

    async def _set(self, open_: bool, *, hang_up: bool) -> None:
        self._refuse = hang_up
        if open_:
            self._healed.set()
        else:
            self._healed.clear()
        for writer in list(self._writers) if hang_up else []:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuse:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(self._copy(reader, there[1]), self._copy(there[0], writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                await self._healed.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
