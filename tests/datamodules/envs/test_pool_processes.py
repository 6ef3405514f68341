"""What worker processes live on with, and when they end: with their parent, and not with its signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datamodules.envs import counting
from datamodules.envs.pool import EnvPool
from datamodules.envs.seeds import SeedRank, episode_seed
from tests.datamodules.envs.pools import ACTION, ROOT, alive, counters, wait_until

LEARNER = """
import sys, time
from datamodules.envs.pool import EnvPool
pool = EnvPool(source="counting", kwargs={options}, count=2, step_timeout_s=600)
pool.reset({{0: 5, 1: 6}})
print(*pool.pids, flush=True)
import numpy as np
{then}
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["idle", "hanging", "exiting"])
def test_no_worker_outlives_its_parent(state):
    options = {"fault": "hang", "fault_at": 1} if state == "hanging" else {}
    then = {"hanging": "pool.step({0: np.zeros(2), 1: np.zeros(2)})", "exiting": "sys.exit()"}.get(state, "")
    command = [sys.executable, "-c", LEARNER.format(options=options, then=then)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2
            if state != "exiting":
                parent.kill()
            assert wait_until(lambda: not any(alive(pid) for pid in pids))
        finally:
            parent.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_leave_the_process_groups_signals_to_their_parent(number):
    # background jobs inherit "ignore", which would make the workers' own handling look right
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with counters() as pool:
            pool.reset({0: 0})
            os.kill(pool.pids[0], number)
            assert counting.decode(pool.step({0: ACTION})[0].pixels) == (1, 0)
    finally:
        signal.signal(number, before)


def test_workers_and_sources_never_import_torch():
    code = """
import sys
from datamodules.envs import sources
for name in set(sources.source_names()) - {"worker", "pool", "counting"}:
    __import__("datamodules.envs." + name)
"""
    code += "import datamodules.envs.worker, datamodules.envs.pool\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_a_live_worker_has_no_torch_and_one_thread_per_library():
    with EnvPool(source="toy", kwargs={"size": 16}, count=1) as pool:
        pool.reset({0: 0})
        assert "torch" not in Path(f"/proc/{pool.pids[0]}/maps").read_text()
        environ = Path(f"/proc/{pool.pids[0]}/environ").read_text().split("\0")
    assert {"OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"} <= set(environ)


def test_episode_seeds_are_a_pure_function_without_repeats():
    seeds = [
        episode_seed(run, rank, index, episode)
        for run in range(3)
        for rank in range(3)
        for index in range(3)
        for episode in range(50)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert len({episode_seed(0, rank, 0, 0) for rank in SeedRank}) == len(SeedRank) == 4
    assert episode_seed(1, 2, 3, 4) == episode_seed(1, 2, 3, 4) != episode_seed(1, 2, 4, 3)


THREADED = """
import os, sys, threading, time
from datamodules.envs.pool import EnvPool
made = []
def make():
    made.append(EnvPool(source="counting", kwargs={"fault": "hang", "fault_at": 1}, count=2, step_timeout_s=600))
    made[0].reset({0: 5, 1: 6})
thread = threading.Thread(target=make); thread.start(); thread.join()
import numpy as np
time.sleep(0.3)
os.write(1, (" ".join(map(str, made[0].pids)) + chr(10)).encode())
made[0].step({0: np.zeros(2), 1: np.zeros(2)})
"""


def test_workers_of_a_thread_outlive_it_and_not_their_parent():
    command = [sys.executable, "-c", THREADED]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(pids) == 2 and all(alive(pid) for pid in pids)
            time.sleep(0.3)  # both hang in their step by now
            parent.kill()
            assert wait_until(lambda: not any(alive(pid) for pid in pids))
        finally:
            parent.kill()
