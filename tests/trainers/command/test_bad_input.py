"""What a user can get wrong: one line that names the key, what it may be and what it is, before anything expensive."""

import copy
import json
import os
import shutil
import sys
import time
import warnings

import pytest

from trainers import fit
from trainers.command import entry
from trainers.command.configuration import read_yaml
from trainers.command.new_run import new_run_folder
from trainers.run_folder.paths import RunPaths
from trainers.training.train import _in_own_words

# override: the key that is named, and what was given
AT_ONCE = {
    "task=walker_wlak": ("task", "walker_walk"),
    "policy=nonee": ("policy=nonee", "none"),
    "experiment=smok": ("experiment=smok", "smoke"),
    "logger=wandb logger.tags=a": ("logger.tags", "list of texts", "'a'"),
    "logger=wandb logger.project=5": ("logger.project", "text", "5"),
    "data.bacth=3": ("data.bacth", "data.batch"),
    "data.batch=0": ("data.batch", "at least 1", "0"),
    "data.batch=-1": ("data.batch", "at least 1", "-1"),
    "data.batch=nan": ("data.batch", "at least 1", "nan"),
    "data.batch=many": ("data.batch", "at least 1", "'many'"),
    "data.batch=2.5": ("data.batch", "whole number", "2.5"),
    "data.batch=true": ("data.batch", "whole number", "True"),
    "data.batch=null": ("data.batch", "whole number", "None"),
    "data.batch=[1]": ("data.batch", "whole number", "[1]"),
    "data.envs=0": ("data.envs", "at least 1", "0"),
    "data.seed_episodes=0": ("data.seed_episodes", "at least 1", "0"),
    "data.length=1": ("data.length", "at least 2", "1"),
    "data.capacity=0": ("data.capacity", "at least 1", "0"),
    "data.flush_rows=0": ("data.flush_rows", "at least 1", "0"),
    "data.update_ratio=-1": ("data.update_ratio", "at least 0", "-1"),
    "data.update_ratio=nan": ("data.update_ratio", "at least 0", "nan"),
    "data.update_ratio=inf": ("data.update_ratio", "at least 0", "inf"),
    "data.step_timeout_s=0": ("data.step_timeout_s", "above 0", "0"),
    "task.env_steps=0": ("task.env_steps", "at least 1", "0"),
    "task.env_steps=nan": ("task.env_steps", "at least 1", "nan"),
    "evaluation.every=0": ("evaluation.every", "at least 1", "0"),
    "evaluation.episodes=-1": ("evaluation.episodes", "at least 0", "-1"),
    "evaluation.final_episodes=0": ("evaluation.final_episodes", "at least 1", "0"),
    "evaluation.envs=0": ("evaluation.envs", "at least 1", "0"),
    "evaluation=5": ("evaluation", "5"),
    "data=5": ("data=5", "online"),
    "planner.horizon=0": ("planner.horizon", "at least 1", "0"),
    "planner.candidates=-3": ("planner.candidates", "at least 1", "-3"),
    "planner.elites=1000": ("planner.elites", "at most", "1000"),
    "planner.iterations=few": ("planner.iterations", "expected a number such as", "'few'"),
    "planner.init_std=-1": ("planner.init_std", "at least 0", "-1"),
    "planner.min_std=nan": ("planner.min_std", "finite", "nan"),
    "planner.min_std=-1": ("planner.min_std", "at least 0", "-1"),
    "agent.discount=1.5": ("agent.discount", "at most 1", "1.5"),
    "agent.discount=0": ("agent.discount", "above 0", "0"),
    "agent.discount=nan": ("agent.discount", "above 0", "nan"),
    "agent.discount=high": ("agent.discount", "above 0", "'high'"),
    "agent.heads=two_cold": ("agent.heads", "'two_cold'", "did you mean two_hot"),
    "agent.heads.name=two_hot +agent.heads.bins=-1": ("agent.heads.bins", "at least 1", "-1"),
    "agent.encoder=null": ("agent.encoder", "a name", "None"),
    "data.sampler=null": ("data.sampler", "data.sampler.name=NAME", "None"),
    "policy.actor=x": ("policy.actor", "policy.actor.name=NAME", "'x'"),
    "planner=ensemble dynamics=ensemble planner.particles=x": ("planner.particles", "'x'"),
    "policy=dyna_q policy.first_actions.buffer=-1": ("policy.first_actions.buffer", "at least 0", "-1"),
    "parts=[a": ("parts", "[a,b]", "'[a'"),
    "agent.act_with=both": ("agent.act_with", "planner or actor", "'both'"),
    "agent.encoder.channels=[]": ("agent.encoder.channels", "at least 1", "[]"),
    "agent.encoder.channels=[0,8]": ("agent.encoder.channels", "at least 1", "[0, 8]"),
    "agent.weights.image=nan": ("agent.weights.image", "at least 0", "nan"),
    "policy.mix=nan": ("policy.mix", "finite", "nan"),
    "++planner.momentum=3": ("planner.momentum: ", "at most 1", "got 3"),
    "planner=mppi ++planner.temperature=0": ("planner.temperature: ", "above 0", "got 0"),
    "planner=ensemble dynamics=ensemble planner.search=cen": ("planner.search: ", "'cen'", "did you mean cem"),
    "planner=ensemble dynamics=ensemble planner.candidates=0": ("planner.candidates: ", "at least 1", "got 0"),
    "planner=ensemble": ("planner=ensemble: ", "dynamics=ensemble", "got GaussianRSSM"),
    "dynamics.free_nats=-1": ("dynamics.free_nats: ", "at least 0", "got -1"),
    "dynamics=ensemble dynamics.filter.hidden=0": ("dynamics.filter.hidden: ", "at least 1", "got 0"),
    "dynamics=rssm_categorical dynamics.uniform=2": ("dynamics.uniform: ", "above 0 and below 1", "got 2"),
    "objective=overshooting objective.steps=1": ("objective.steps: ", "whole number of at least 2", "got 1"),
    "objective=sigreg ++objective.reach=-1": ("objective.reach: ", "above 0", "got -1"),
    "policy.mix=2": ("policy.mix: ", "at most 1", "got 2"),
    "policy=dyna policy.learner.name=ppo": ("policy.learner.name: ", "max_q, soft", "got 'ppo'"),
    "policy=dyna ++policy.learner.members=0": ("policy.learner.members: ", "at least 2", "got 0"),
    "policy=distil ++policy.planner.elites=1000": ("policy.planner.elites: ", "at most", "got 1000"),
    "policy=dyna policy.actor.hidden=0": ("BadOption: policy.actor.hidden: ", "at least 1", "got 0"),
    "policy.actor.hidden=0": ("policy.actor.hidden: ", "at least 1", "got 0"),
    "agent.heads.name=two_hot ++agent.heads.bins=4": ("agent.heads.bins: ", "odd", "got 4"),
    "agent.continuation=maybe": ("agent.continuation: ", "auto, true or false", "got 'maybe'"),
    "agent.replan=99": ("agent.replan: ", "planner.horizon", "got 99"),
    "data.across_episodes=maybe": ("data.across_episodes: ", "True or False", "got 'maybe'"),
    "data.sampler.name=recent data.sampler.share=2": ("data.sampler.share: ", "of at least 0 and at most 1", "got 2"),
    "trainer.strategy=nope": ("trainer: ", "nope"),
    "logger.name=paper": ("logger.name: ", "csv or wandb or tensorboard", "got 'paper'"),
    "logger=wandb logger.offline=perhaps": ("logger.offline: ", "True or False", "got 'perhaps'"),
    "optimizer.learning_rates.model=-1": ("optimizer.learning_rates.model", "at least 0", "-1"),
    "optimizer.learning_rates.model=nan": ("optimizer.learning_rates.model", "at least 0", "nan"),
    "optimizer.learning_rates=3": ("optimizer.learning_rates", "3"),
    "optimizer.eps=0": ("optimizer.eps", "above 0", "0"),
    "checkpoint.keep=0": ("checkpoint.keep", "at least 1", "0"),
    "seed=-1": ("seed", "at least 0", "-1"),
    "seed=4294967296": ("seed", "at most 4294967295", "4294967296"),
    "render=nice": ("render", "auto or suite or fast", "'nice'"),
    "resume=/no/such/run": ("/no/such/run", "run folder", "none"),
    "trainer.accelerator=tpuu": ("trainer", "accelerator", "tpuu"),
    "trainer.devices=0": ("trainer", "devices", "0"),
    "trainer.precision=7": ("trainer", "recision", "7"),
    "+trainer.devises=2": ("trainer.devises", "devices"),
    "batch": ("key=value", "'batch'"),
    "--batch=3": ("--batch",),
}
SHORT = (
    *("trainer.accelerator=cpu", "task.env_steps=50", "data.seed_episodes=1", "data.update_ratio=0.05"),
    "evaluation.final_episodes=1",
)
ONCE_AN_ENVIRONMENT_IS_KNOWN = {
    "data.length=52": ("data.length", "51 rows of an episode", "52"),
    "data.capacity=101": ("data.capacity", "at least 102 rows", "101"),
    "data.capacity=1000000000000": ("replay of 1000000000000 rows", "are available"),
    "agent.discount=1": ("agent.discount", "above 0 and below 1", "got 1", "where a policy is learned"),
    "planner=uct planner.levels=30": ("planner.levels", "at most 512 actions", "30^2"),
    "agent.encoder.name=convv": ("agent.encoder.name: ", "'convv'", "did you mean conv"),
    "+dynamics.heads=1": ("dynamics.heads: no option of dynamics=rssm_gaussian", "it takes balance", "hidden"),
    "task.env.size=3": ("task.env.size: ", "at least 16 and at most 64", "3"),
    "task.env.size=nope": ("task.env.size: ", "a whole number", "'nope'"),
    "+task.env.speed=fast": ("task.env.speed: ", "a finite number", "'fast'"),
    "task.env.random_goal=maybe": ("task.env.random_goal: ", "true or false", "'maybe'"),
    "task.env.episode_steps=0": ("task.env.episode_steps: ", "at least 1", "0"),
    "task.visuals.frame_stack.count=0": ("task.visuals.frame_stack.count: ", "at least 1", "got 0"),
    "evaluation.visuals.frame_stack.count=0": ("evaluation.visuals.frame_stack.count: ", "at least 1", "got 0"),
    "+task.env.sped=1": ("toy.make", "sped"),
    "task.source=os": ("source", "'os'"),
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "x"


@pytest.mark.parametrize("override", AT_ONCE)
def test_refused_at_once(refused, folder, override):
    start = time.monotonic()
    where = [] if override.startswith("resume=") else [f"run_dir={folder}"]
    line = refused(fit.main, "experiment=smoke", *where, *override.split())
    assert time.monotonic() - start < 60
    assert "\n" not in line and all(part in line for part in AT_ONCE[override]), line
    assert not folder.parent.exists()


@pytest.mark.parametrize("override", ONCE_AN_ENVIRONMENT_IS_KNOWN)
def test_refused_before_training(refused, folder, override):
    line = refused(fit.main, "experiment=smoke", "trainer.accelerator=cpu", f"run_dir={folder}", *override.split())
    line = line.partition("damaged blocks left out\n")[2] or line
    assert "\n" not in line and all(part in line for part in ONCE_AN_ENVIRONMENT_IS_KNOWN[override]), line
    assert not folder.parent.exists()


def test_what_a_user_has_put_into_the_folder_stays_alone(refused, folder):
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    refused(fit.main, "experiment=smoke", "trainer.accelerator=cpu", f"run_dir={folder}", "agent.encoder.name=convv")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_parameter_that_is_removed_is_named(refused, folder):
    assert "~data.batch" in refused(fit.main, "~data.batch", f"run_dir={folder}")


def test_missing_gl(refused, folder, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    line = refused(fit.main, "task=cartpole_balance", "trainer.accelerator=cpu", f"run_dir={folder}")
    assert "MUJOCO_GL" in line and "bogus" in line and "egl" in line and "\n" not in line, line
    assert not folder.exists()


def test_a_folder_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    line = refused(fit.main, "experiment=smoke", "trainer.accelerator=cpu", f"run_dir={tmp_path / 'file' / 'run'}")
    assert line.startswith("RunFolderReadOnly: run_dir: expected a folder that can be written") and "\n" not in line
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_folder_that_holds_a_run(refused, finished):
    before = (finished / "config.yaml").read_bytes()
    line = refused(fit.main, "experiment=smoke", f"run_dir={finished}")
    assert line == f"BadConfig: run_dir: {finished} holds a run already; resume={finished} continues it"
    assert (finished / "config.yaml").read_bytes() == before


def test_a_folder_in_use(refused, finished, folder):
    folder.mkdir(parents=True)
    for where, arguments in ((folder, [f"run_dir={folder}"]), (finished, [f"resume={finished}"])):
        lock = RunPaths(where).lock()
        line = refused(fit.main, *["experiment=smoke", "trainer.accelerator=cpu"][: 2 * (where == folder)], *arguments)
        os.close(lock)
        assert line == f"RunFolderInUse: run_dir: another process trains in {where}"


def test_a_damaged_configuration(refused, folder):
    folder.mkdir(parents=True)
    for text in ("[1, 2]", "a: [", "data: {batch: 3}"):
        (folder / "config.yaml").write_text(text)
        line = refused(fit.main, f"resume={folder}")
        assert line.startswith("BadConfig: ") and "config.yaml" in line and "\n" not in line, line


def test_ranks_started_apart_need_a_folder(refused, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv(fit.RUN_DIR, raising=False)
    assert "run_dir: expected a path" in refused(fit.main, "experiment=smoke")


def test_default_folders_are_unique_within_a_second():
    assert len({new_run_folder(None, title="x") for _ in range(20)}) == 20


def test_paths_that_are_saved_are_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(fit.RUN_DIR, "")
    config, paths = fit._configure(["data=offline", "data.uri=npz:~/a?b?alignment=departure", "run_dir=~/runs/x"])
    assert paths.root == tmp_path / "home/runs/x" and config["run_dir"] == str(paths.root)
    assert config["data"]["uri"] == f"npz:{tmp_path}/home/a?b?alignment=departure"
    assert config["data"]["cache"] == str(tmp_path / "cache")
    config, _ = fit._configure(["data=offline", "data.uri=data/toy", "data.cache=~/c", "run_dir=x"])
    assert (config["data"]["uri"], config["data"]["cache"]) == (f"{tmp_path}/data/toy", f"{tmp_path}/home/c")
    assert config["run_dir"] == str(tmp_path / "x")


def test_a_bug_keeps_its_traceback_and_ends_in_one_line(monkeypatch, capsys):
    def broken(arguments):
        raise ValueError("mine")

    monkeypatch.setattr(sys, "argv", ["command"])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert entry.run(broken, usage="") == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"status": "failed", "error": "ValueError: mine", "exit_code": 1}
    assert "in broken" in err


def test_ctrl_c_is_no_failure(monkeypatch, capsys):
    def stopped(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["command"])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    assert entry.run(stopped, usage="") == 130
    out, err = capsys.readouterr()
    assert json.loads(out) == {"status": "interrupted", "exit_code": 130} and err == "interrupted\n"


def test_a_second_ctrl_c_is_none_either():
    """Lightning turns it into an exit of its own."""
    with pytest.raises(KeyboardInterrupt), _in_own_words():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    with pytest.raises(SystemExit), _in_own_words():
        sys.exit(3)


def test_flags_that_lightning_cannot_take_together_are_said_in_one_line(refused, folder):
    arguments = (*SHORT, f"run_dir={folder}", "+trainer.gradient_clip_val=1.0")
    line = refused(fit.main, "experiment=smoke", *arguments).splitlines()[-1]
    assert line.startswith("BadConfig: trainer: ") and "gradient" in line


def test_a_run_goes_on_with_its_own_kind_of_data(refused, finished):
    line = refused(fit.main, f"resume={finished}", "data=offline", f"data.uri={finished}")
    assert line.startswith("BadConfig: data: expected online as in the run to resume, got offline")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("seed=7", "seed: expected "),
        ("task.env.random_goal=true", "task.env.random_goal: expected "),
        ("planner=icem", "task.env_steps: expected more than the "),
        ("evaluation.final_episodes=7", "evaluation.final_episodes would change"),
        ("task.env_steps=1", "task.env_steps: expected more than the "),
        ("run_dir=elsewhere", "run_dir: expected none beside resume="),
        ("experiment=smoke", "experiment=smoke: expected no experiment beside the configuration of a run"),
    ],
)
def test_a_finished_run_is_not_told_what_it_has_not_been(refused, finished, override, named):
    before = {name: (finished / name).read_bytes() for name in ("config.yaml", "results.json")}
    assert named in refused(fit.main, f"resume={finished}", override)
    assert {name: (finished / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("seed=7", "seed: expected 0 as in the run to resume, got 7; another run_dir= begins a run"),
        ("task.env.random_goal=true", "task.env.random_goal: expected False as in the run to resume, got True"),
        ("planner=icem", "nothing is left that planner would change"),
    ],
)
def test_nor_by_a_line_that_continues_what_it_finds(refused, toy, finished, tmp_path, override, named):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    assert named in refused(fit.main, *toy, f"run_dir={folder}", "resume=auto", override)
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


def test_a_line_that_continues_leaves_to_the_run_what_it_has_chosen(finished):
    saved = read_yaml(finished / "config.yaml")
    saved["task"]["env"]["look"], now = "fast", copy.deepcopy(saved)
    now["task"]["env"] |= {"look": "auto", "size": 32}
    assert fit._as_chosen(saved, now)["task"]["env"] == saved["task"]["env"] | {"size": 32}


def test_a_finished_run_may_be_asked_for_again_by_the_line_that_began_it(runs, toy, finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    again = runs.fit(*toy, f"run_dir={folder}", "resume=auto")
    assert again.wait() == 0, again.err.read_text()
    assert again.results()["returns"] == json.loads((finished / "results.json").read_text())["returns"]


def test_a_file_is_no_folder_of_a_run(refused, tmp_path):
    (tmp_path / "file").touch()
    assert "expected a folder, or none yet, got the file" in refused(fit.main, *SHORT, f"run_dir={tmp_path / 'file'}")


def test_a_shell_within_an_allocation_is_no_task_of_it(runs, tmp_path):
    run = runs.fit("experiment=smoke", *SHORT, f"run_dir={tmp_path / 'run'}", SLURM_NTASKS="4", SLURM_JOB_ID="1")
    assert run.wait() == 0, run.err.read_text()
