"""Ranks that torchrun and SLURM start with one command, which continues the run when it is started again."""

import os
import signal
import socket
import stat

import pytest

from trainers.run_folder.checkpoint import load_checkpoint, newest

SHORT = ("task.env_steps=160", "evaluation.every=100000", "evaluation.final_episodes=1", "resume=auto")


def checkpoint(folder):
    return load_checkpoint(newest(folder / "checkpoints"))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def srun(runs, tasks, *arguments, **environ):
    """Tasks of one step of a job, as srun would start them on one machine."""
    common = {"SLURM_JOB_ID": "4321", "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_NTASKS": str(tasks)}
    common |= {"SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_NNODES": "1", "SLURM_NODELIST": "127.0.0.1"}
    common |= {"SLURM_NODEID": "0", "MASTER_PORT": str(free_port()), "MASTER_ADDR": "127.0.0.1", **environ}
    started = []
    for task in map(str, range(tasks)):
        group = started[0].pid if started else 0
        own = {"SLURM_PROCID": task, "SLURM_LOCALID": task}
        started.append(runs.start("fit", *arguments, group=group, **common, **own, OMP_NUM_THREADS="1"))
    return started


@pytest.mark.slow
def test_torchrun_on_two_machines(runs, toy, tmp_path, gone):
    """Two agents with one rank each meet; then one agent with four ranks goes on."""
    folder = tmp_path / "run"
    command = ("-m", "trainers.fit", *toy, f"run_dir={folder}", *SHORT)
    rendezvous = ("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--rdzv-id=one")
    agents = [
        runs.cli(
            "torch.distributed.run",
            *("--nnodes=2", f"--node-rank={node}", "--nproc-per-node=1", *rendezvous, *command),
            OMP_NUM_THREADS="1",
        )
        for node in (0, 1)
    ]
    assert [agent.wait() for agent in agents] == [0, 0], [agent.err.read_text()[-2000:] for agent in agents]
    state = checkpoint(folder)["callbacks"]["loop"]
    assert (state["counters"]["env_steps"], len(state["ranks"])) == (160, 2)
    longer = [word.replace("160", "240") for word in command]
    again = runs.cli("torch.distributed.run", "--standalone", "--nproc-per-node=4", *longer, OMP_NUM_THREADS="1")
    assert again.wait() == 0, again.err.read_text()[-2000:]
    state = checkpoint(folder)["callbacks"]["loop"]
    assert (state["counters"]["env_steps"], len(state["ranks"]), state["generation"]) == (240, 4, 1)
    assert f"resume=auto: continues {folder}" in again.err.read_text()
    assert gone(agents[0].pid) and gone(again.pid)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.slow
def test_slurm_requeues_a_job_whose_time_is_up(runs, toy, tmp_path, gone, known):
    """SIGUSR1 reaches every process of the job; the run is saved, the job is requeued, and goes on."""
    folder, bin_folder = tmp_path / "run", tmp_path / "bin"
    bin_folder.mkdir()
    scontrol = bin_folder / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "asked"}\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    path = {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    command = (*toy, f"run_dir={folder}", *SHORT[: None if known else -1])
    first, second = srun(runs, 2, *command, "task.env_steps=100000", **path)
    first.wait_for_rows(folder, 2)
    for _ in range(3):  # a notice may come more than once
        first.send(signal.SIGUSR1)
    assert first.wait() == 128 + signal.SIGUSR1, first.err.read_text()
    assert second.wait() == 0 and gone(first.pid)
    assert first.results()["status"] == "interrupted"
    assert (tmp_path / "asked").exists() == known
    if not known:
        assert "not requeued: the command has no resume=auto" in first.err.read_text()
        return
    assert (tmp_path / "asked").read_text() == "requeue 4321\n"
    assert "requeued SLURM job 4321" in first.err.read_text()
    stopped = checkpoint(folder)["callbacks"]["loop"]["counters"]["env_steps"]
    first, second = srun(runs, 2, *command, f"task.env_steps={stopped + 40}", **path)
    assert (first.wait(), second.wait()) == (0, 0), first.err.read_text()
    assert first.results()["env_steps"] == stopped + 40


def test_a_signal_to_one_rank_alone_stops_all(runs, toy, tmp_path, gone):
    folder = tmp_path / "run"
    options = ("trainer.devices=2", "trainer.strategy=ddp", f"run_dir={folder}", "task.env_steps=100000")
    first, second = runs.ranks(2, *toy, *options, OMP_NUM_THREADS="1")
    first.wait_for_rows(folder, 2)
    os.kill(second.pid, signal.SIGTERM)
    assert first.wait() == 128 + signal.SIGTERM, first.err.read_text()
    assert second.wait() == 0 and gone(first.pid)
    assert first.results()["status"] == "interrupted"
