"""A camera in a process of its own: `python -m tests.rigs.other_camera HZ` writes random frames of 16 x 16 pixels."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPE = (16, 16, 3)
BYTES = 16 * 16 * 3


class OtherCamera:
    """Starts one, reads its frames in a thread, and starts another when it was killed."""

    def __init__(self, hz: float) -> None:
        self._hz, self._change = hz, threading.Condition()
        self._frame: NDArray[np.uint8] | None = None
        self._process = self._start()

    def newest(self, timeout_s: float) -> NDArray[np.uint8] | None:
        """A frame that was not given yet, or None where none comes in time."""
        with self._change:
            self._change.wait_for(lambda: self._frame is not None, timeout_s)
            frame, self._frame = self._frame, None
        return frame

    def kill(self, away_s: float) -> None:
        """End its process, and start another one a while later."""
        self.close()
        time.sleep(away_s)
        self._process = self._start()

    def stop(self, lasts_s: float) -> None:
        """Hold its process up."""
        os.kill(self._process.pid, signal.SIGSTOP)
        time.sleep(lasts_s)
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.rigs.other_camera", repr(self._hz)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()
        return process

    def _read(self, pipe: Any) -> None:
        while len(data := pipe.read(BYTES)) == BYTES:
            with self._change:
                self._frame = np.frombuffer(data, np.uint8).reshape(SHAPE)
                self._change.notify_all()


def main(hz: float) -> None:
    """Write frames until nobody reads."""
    rng = np.random.default_rng()
    try:
        while True:
            sys.stdout.buffer.write(rng.integers(0, 256, BYTES, np.uint8).tobytes())
            sys.stdout.buffer.flush()
            time.sleep(1 / hz)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main(float(sys.argv[1]))
