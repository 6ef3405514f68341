"""An environment that starts programs, in all the ways in which they can lose their parent."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces

SLEEP = [sys.executable, "-c", "import time; time.sleep(3600)"]
DEAF = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(3600)"]
# a daemon: its parent ends at once, in a session of its own
DAEMON = (
    f"import subprocess as s; print(s.Popen({SLEEP!r}, start_new_session=True, stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
)


class Programs(gymnasium.Env):
    """Writes the process ids of what it started as a line of `pids`; `at`: "reset" starts anew in every episode."""

    observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, pids, at="start", hang=False, facts=None):
        self.pids, self.hang, self.facts, self.started = pids, hang, facts, []
        self.start()

    def start(self):
        self.started += [
            subprocess.Popen(SLEEP),
            subprocess.Popen(DEAF, start_new_session=True),
            subprocess.Popen(SLEEP, env={}, start_new_session=True),
        ]
        daemon = subprocess.run(
            [sys.executable, "-c", DAEMON], capture_output=True, text=True, check=True, close_fds=False
        )
        forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
        forked.start()
        self.started.append(forked)
        numbers = [os.getpid(), os.getppid(), *(program.pid for program in self.started), int(daemon.stdout)]
        with open(self.pids, "a") as file:
            file.write(json.dumps(numbers) + "\n")

    def reset(self, *, seed=None, options=None):
        if self.facts:
            self.tell()
        return np.arange(768).reshape(16, 16, 3).astype(np.uint8), {}

    def tell(self):
        """The signals of a program as it sees them, and whether `terminate` ends a program and a fork."""
        status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        signals = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Sig")}
        program, forked = self.started[0], self.started[-1]
        program.terminate(), forked.terminate()
        forked.join(20)
        with open(self.facts, "w") as file:
            json.dump({**signals, "program": program.wait(20), "forked": forked.exitcode}, file)

    def step(self, action):
        while self.hang:
            time.sleep(3600)
        return self.reset()[0], 0.0, False, False, {}
