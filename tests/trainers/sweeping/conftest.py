"""A `trainers.fit` that says where it runs and waits, for tests of what starts it."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import trainers
from tests.trainers.conftest import until
from trainers.process.child import THREADS
from trainers.sweeping.engine import Job

FIT = """
import json, os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(143)))
names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "RANK", "SLURM_NTASKS", "SLURM_JOB_ID")
names += ("MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "TORCHELASTIC_RUN_ID")
here = {name: os.environ[name] for name in names if name in os.environ}
print(json.dumps({"arguments": sys.argv[1:], "cores": sorted(os.sched_getaffinity(0)), "environ": here}))
print("ready", flush=True)
folder = Path(sys.argv[-1].partition("=")[2])
folder.mkdir(exist_ok=True)
(folder / "config.yaml").touch()
end = time.monotonic() + 120
while not (folder / "end").exists() and time.monotonic() < end:
    time.sleep(0.05)
"""


@dataclass(frozen=True)
class StandIn:
    """Args: folder: that processes are started in. log: of the job."""

    folder: Path
    log: Path

    def job(self) -> Job:
        return Job(name="x", folder=self.folder / "x", overrides=("a=1",), log=self.log)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, text: str, times: int = 1) -> None:
        until(lambda: self.text().count(text) >= times, timeout_s=60, what=self.log)

    def said(self) -> dict:
        """What the newest run said of where it runs."""
        return json.loads([line for line in self.text().splitlines() if line.startswith("{")][-1])


@pytest.fixture
def no_threads_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_threads_set: None) -> StandIn:
    (tmp_path / "trainers").mkdir()
    # all other modules are the real ones
    (tmp_path / "trainers" / "__init__.py").write_text(f"__path__.append({str(Path(trainers.__file__).parent)!r})\n")
    (tmp_path / "trainers" / "fit.py").write_text(FIT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    return StandIn(tmp_path, tmp_path / "logs" / "x.log")
