"""The field's own client, in a virtual environment of its own: it needs another numpy."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.tiny_bundle import tiny_bundle
from tests.trainers.deployment.test_server import serving

SCRIPT = """
import sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
policy = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="secret")
assert policy.get_server_metadata()["horizon"] == 5
rng = np.random.default_rng(0)
for _ in range(3):
    seen = {"observation/image": rng.integers(0, 256, (16, 16, 3)).astype(np.uint8), "prompt": "go"}
    reply = policy.infer(seen)
    assert reply["actions"].shape == (5, 2) and reply["actions"].dtype == np.float32, reply
    assert reply["server_timing"]["infer_ms"] > 0 and reply["status"]["observation"] == "ok"
print("ok", np.__version__)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openpi") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    # typing_extensions is one that openpi-client 0.1.2 forgets to ask for
    packages = ["openpi-client==0.1.2", "typing_extensions"]
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
    done = subprocess.run(install, capture_output=True, text=True, timeout=280)
    if done.returncode:
        pytest.skip(f"openpi-client cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "bin" / "python"


@pytest.mark.slow
def test_openpi_client_talks_to_the_server(python: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle(tmp_path / "b", what="policy"), api_key="secret") as port:
        done = subprocess.run([python, "-c", SCRIPT, str(port)], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("ok 1."), done.stderr
