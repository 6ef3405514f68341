"""Every command and every block of code in README.md runs, in a cheap form.

What makes it cheap: `runs/cartpole_swingup/x` is a tiny run of the toy task, overrides are appended to a command
(EXTRA), `make` only says what it would do. A command of a form that is not named here fails the test.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import worldmodel.planners
from trainers import fit
from trainers.build.agent import build_agent
from trainers.build.environments import open_pool
from trainers.command import registry
from trainers.command.configuration import read_yaml

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
RUN = "runs/cartpole_swingup/x"

COMMAND = r"([A-Z_]+=\S* )*(python|python3|uv|make|pip|git|sudo|torchrun|pytest|\.venv/bin/\w+) "
FIT = (
    *("data.seed_episodes=1", "data.batch=2", "data.length=8", "data.update_ratio=0.1", "data.capacity=1000"),
    *("evaluation.final_episodes=1", "planner.candidates=8", "planner.elites=2", "planner.iterations=1"),
)
EXTRA = {
    "fit toy": (*FIT, "task.env_steps=26"),
    "fit suite": (*FIT, "task.env_steps=1001", "task.env.action_repeat=50"),
    "fit offline": (
        *("experiment=small", "data.batch=2", "data.length=8", "data.updates=3"),
        *("trainer.accelerator=cpu",),
    ),
    "fit imagined": ("data.batch=2", "data.length=8", "data.updates=3"),
    "collect_data": ("episodes=1", "task.env.action_repeat=50"),
    "inspect_data": (),
    "fit resume": ("task.env_steps=151",),
    "evaluate": ("episodes=1", "planner.candidates=8", "planner.elites=2"),
    "distill": (
        *("env_steps=50", "rounds=1", "reanalyse=0", "updates=2", "batch=2", "length=4", "envs=1", "episodes=1"),
    ),
    "benchmark env": ("task=toy_point", "repeats=60"),
    "benchmark update": ("data.batch=1", "data.length=2", "repeats=1"),
    "benchmark act": ("repeats=1",),
    "doctor": ("task=toy_point",),
    "report": (),
    "sweep": (*FIT, "task=toy_point", "seed=0", "task.env_steps=26", "trainer.accelerator=cpu"),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The lines of all bash blocks, and the code in the text that starts as a command does."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    spans = [span for span in re.findall(r"`([^`]+)`", prose) if re.match(COMMAND, span)]
    found = [re.sub(r"\s+#.*", "", line).strip() for line in [*lines, *spans]]
    return list(dict.fromkeys(line for line in found if line))


def form(words: list[str]) -> str:
    """Which key of EXTRA a command of trainers has: by its module, and for some by its first words."""
    module, arguments = words[2].removeprefix("trainers."), words[3:]
    if module == "fit":
        kinds = {
            "resume": "resume=",
            "offline": "data=offline",
            "imagined": "data=imagined",
            "toy": ("task=toy", "experiment=toy"),
        }
        kind = next((k for k, start in kinds.items() if any(a.startswith(start) for a in arguments)), "suite")
        return f"fit {kind}"
    return f"{module} {arguments[0]}" if module == "benchmark" else module


def forget_run_dir(patch: pytest.MonkeyPatch) -> None:
    """No folder is inherited, and what a run sets is gone after the test: undoing a deletion needs a value."""
    patch.setenv(fit.RUN_DIR, "")
    patch.delenv(fit.RUN_DIR)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the smoke experiment."""
    root = tmp_path_factory.mktemp("readme") / "x"
    with pytest.MonkeyPatch.context() as patch:
        forget_run_dir(patch)
        fit.main(["experiment=smoke", "task.env_steps=150", "evaluation.final_episodes=1", f"run_dir={root}"])
    return root


@pytest.fixture
def place(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, where RUN is, with the project importable from everywhere."""
    shutil.copytree(tiny_run, tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    forget_run_dir(monkeypatch)
    return tmp_path


@pytest.mark.parametrize("command", commands())
def test_a_command_runs(
    command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if re.fullmatch(r"git clone \S.*|cd \w+", command):
        return
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    words = words[2:] if words[:2] == ["uv", "run"] else words
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return
    assert words[:2] == ["python", "-m"] and words[2].startswith("trainers."), f"unknown command: {command}"
    words += [] if words[-1] == "--help" else EXTRA[form(words)]
    has_ranks = any(word.startswith("trainer.devices=") for word in words)
    code = run_apart(words) if has_ranks else run_here(words, monkeypatch)
    out = capfd.readouterr().out
    if words[-1] == "--help":
        assert code == 0 and "key=value" in out
        return
    assert code in ((0, 1) if "doctor" in words[2] else (0,)), command
    assert isinstance(json.loads(out.splitlines()[-1]), dict), command


def run_here(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """What `python -m` does, without loading torch once more; the exit code."""
    monkeypatch.setattr(sys, "argv", words[2:])
    monkeypatch.delitem(sys.modules, words[2], raising=False)
    try:
        runpy.run_module(words[2], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish()
    return 0


def run_apart(words: list[str]) -> int:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words[1:]], env=environ, check=False, timeout=240).returncode


def example_planner(folder: Path) -> dict[str, object]:
    """Write the README's planner beside the project's own, as if it were there; its options."""
    code = next(block for block in blocks("python") if block.startswith("# worldmodel/planners/"))
    (folder / Path(code.splitlines()[0][2:]).name).write_text(code)
    return yaml.safe_load(next(block for block in blocks("yaml") if block.startswith("# configs/planner/")))


def test_the_python_example_runs(place: Path) -> None:
    (code,) = [block for block in blocks("python") if not block.startswith("# worldmodel/")]
    names = {"__name__": "example", "frame": np.zeros((48, 64, 3), np.uint8)}
    exec(compile(code, "README.md", "exec"), names)
    assert names["action"].shape == (2,) and abs(names["action"]).max() <= 1


def test_the_example_planner_plans_for_the_trained_agent(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worldmodel.planners, "__path__", [*worldmodel.planners.__path__, str(place)])
    planner = registry.make("worldmodel.planners", example_planner(place))
    config = read_yaml(Path(RUN) / "config.yaml")
    with open_pool(config, 1) as pool:
        agent = build_agent(config, pool.spec)
    latent = torch.randn(3, agent.dynamics.latent_dim)
    plan = planner.plan(agent.simulator(), latent, generator=torch.Generator().manual_seed(0))
    assert plan.mean.shape == (3, planner.horizon, 2) and plan.mean.abs().max() <= 1
    assert torch.equal(plan.action, plan.mean[:, 0])


def test_no_block_dodges_these_tests() -> None:
    languages = re.findall(r"^```(\w*)", README, re.MULTILINE)
    assert set(languages[::2]) <= {"bash", "python", "text", "yaml"} and set(languages[1::2]) == {""}
    assert [len(blocks(language)) for language in ("python", "yaml")] == [2, 1]


def test_paths_that_are_named_exist() -> None:
    linked = re.findall(r"\]\(([^)#:]+)\)", re.sub(r"<!--.*?-->", "", README, flags=re.DOTALL))
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_the_first_result_comes_early() -> None:
    lines = README.splitlines()
    assert lines.index("make train") < 20
    assert len(lines) <= 230
