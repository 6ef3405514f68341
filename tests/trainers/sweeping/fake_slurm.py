"""SLURM's commands on one machine, linked under each of their names: jobs are processes, their states files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    below = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [pid, *(one for child in below for one in descendants(int(child)))]


def sbatch(script: str) -> None:
    number = str(len(list(STATE.glob("*.sh"))) + 1)
    (STATE / f"{number}.sh").write_text(Path(script).read_text())
    start(number)
    print(f"Submitted batch job {number}")


def start(number: str) -> None:
    (STATE / f"{number}.state").write_text("RUNNING")
    script = f"trap '' USR2 TERM; bash {STATE / number}.sh; echo COMPLETED > {STATE / number}.state"
    environ = {**os.environ, "SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    null = subprocess.DEVNULL
    process = subprocess.Popen(["bash", "-c", script], env=environ, start_new_session=True, stdout=null, stderr=null)
    (STATE / f"{number}.pid").write_text(str(process.pid))


def srun(*words: str) -> None:
    output = words[words.index("--output") + 1].replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
    with Path(output).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        start = next(place for place, word in enumerate(words) if "python" in word)
        os.execv(words[start], words[start:])


def scancel(number: str, *words: str) -> None:
    sent = getattr(signal, words[-1]) if words else signal.SIGTERM
    pids = descendants(int((STATE / f"{number}.pid").read_text()))
    # SLURM kills whatever a job has started; any other signal goes to the script and its task alone
    for pid in pids if sent == signal.SIGKILL else pids[:3]:
        os.kill(pid, sent)


def scontrol(_: str, number: str) -> None:
    pid = int((STATE / f"{number}.pid").read_text())
    # when the job that asks for it has ended
    if os.fork() == 0:
        os.setsid()
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
        start(number)


def squeue(*words: str) -> None:
    number = next(word.removeprefix("--jobs=") for word in words if word.startswith("--jobs="))
    state = STATE / f"{number}.state"
    if not state.exists():
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    if state.read_text().strip() in ("PENDING", "RUNNING"):
        name = next(line for line in (STATE / f"{number}.sh").read_text().splitlines() if "--job-name=" in line)
        print(name.partition("--job-name=")[2])


def sacct(*words: str) -> None:
    print("JobID|State|NodeList")
    for path in STATE.glob("*.state"):
        print(f"{path.stem}|{path.read_text().strip()}|here")


if __name__ == "__main__":
    globals()[Path(sys.argv[0]).name](*sys.argv[1:])
