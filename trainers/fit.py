"""Train an agent from pixels: `python -m trainers.fit task=walker_walk`."""

import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.command.arguments import Command
from trainers.command.configuration import BadConfig, override_saved, read_yaml, run_differs, run_title, task_names
from trainers.command.entry import is_first_rank
from trainers.command.new_run import from_anywhere, new_configuration, new_run_folder, paths_at_home
from trainers.command.preflight import check
from trainers.process.launched import launched_ranks, requeue
from trainers.run_folder.find import newest_run
from trainers.run_folder.paths import RunPaths

UNSEEN = ("trainer", "logger", "checkpoint")  # groups that change nothing of what was learned or measured
RUN_DIR = "WORLDMODEL_RUN_DIR"  # how ranks that Lightning launches learn the folder that rank 0 chose

COMMAND = Command(
    name="fit",
    summary=(
        "Learns a world model from pixels and acts with it. Every line of configs/fit.yaml and of the groups beside "
        "it is a key; a group is chosen by its file's name. The run folder gets config.yaml, metrics.csv, "
        "checkpoints/, replay/, videos/ and report.html."
    ),
    overrides="of the configuration",
    hint="resume={0} goes on with a run",
    notes=f"""  python -m trainers.fit                                  cartpole_swingup, on what this machine has
  python -m trainers.fit task=walker_walk                 any task of the list below
  python -m trainers.fit task=toy_point                   needs no GL, minutes on one core
  python -m trainers.fit resume=runs/cartpole_swingup/x   continue where it stopped
  python -m trainers.fit task=walker_walk resume=auto     continue the newest run of this task and seed, or begin one
  python -m trainers.fit data=offline data.uri=PATH       from recorded episodes, no environment
  python -m trainers.fit data=imagined data.model=RUN     value and policy in a trained model's imagination
  python -m trainers.fit trainer.devices=2 trainer.strategy=ddp trainer.accelerator=cpu
  python -m trainers.fit logger=wandb policy=none planner.horizon=12 task.env.action_repeat=4

Often changed:
  task=NAME  task.env_steps=60000  task.env.action_repeat=8  render=auto|suite|fast  seed=0
  dynamics=rssm_gaussian|rssm_categorical|gaussian|deterministic|ensemble|laplace|variational|smoothing
  objective=reconstruction|overshooting|latent_consistency|slow_consistency|info_nce|barlow|sigreg
  decoder=light|full
  planner=cem|cem_best|icem|mppi|planet|seeded|gradient|cem_gradient|ilqr|uct|gumbel|random|ensemble|confidence
  policy=backprop|backprop_rewards|score_function|mixed|dyna_q|dyna|gps|mdgps|divide_and_conquer|distil|none
  agent.act_with=planner|actor  experiment=toy|smoke|small
  data.envs=1  data.batch=12  data.length=24  data.update_ratio=1.6
  evaluation.every=10000  evaluation.episodes=2  trainer.precision=32-true  run_dir=PATH

Tasks:
  {" ".join(task_names())}""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Train, evaluate, report; returns the results that are printed as the last line."""
    COMMAND.parse(arguments)
    try:
        config, paths = _configure(arguments)
        check(config)
        # torch and Lightning take seconds to load: a wrong word on the command line is answered before
        from trainers.build.check_parts import fit_options
        from trainers.training.train import train

        config = fit_options(config, arguments)
        if config["resume"]:
            _require_something_to_do(paths.root, config, arguments)
        results = train(config, paths)
        if results["exit_code"] == 128 + signal.SIGUSR1 and is_first_rank():
            _say(requeue() if "resume=auto" in arguments else "not requeued: the command has no resume=auto")
        return results
    finally:
        if is_first_rank():
            os.environ.pop(RUN_DIR, None)  # for this run's other ranks, not for the next run of this process


def _configure(arguments: Sequence[str]) -> tuple[dict[str, Any], RunPaths]:
    """The configuration, new or of the run to resume, and the run folder."""
    # what other commands call the folder that they write
    arguments = [re.sub("^out=", "run_dir=", text) for text in arguments]
    arguments = paths_at_home(arguments)
    named = dict(text.split("=", 1) for text in arguments)
    if named.get("resume") == "auto":
        config, root = _newest_or_new([text for text in arguments if not text.startswith("resume=")])
    elif named.get("resume", "") not in ("", "null"):
        config, root = _resumed(Path(named["resume"]), arguments)
        config = from_anywhere(config)
    else:
        config = new_configuration(arguments)
        root = _new_root(config)
    root = root.resolve()
    if is_first_rank():
        os.environ[RUN_DIR] = str(root)
    ranks = {key: number for key, number in launched_ranks().items() if f"trainer.{key}" not in named}
    return config | {"run_dir": str(root), "trainer": config["trainer"] | ranks}, RunPaths(root)


def _newest_or_new(arguments: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """The configuration as it is typed, and the run to continue with it, or a new one's folder where there is none."""
    config = new_configuration(arguments)
    title, seed = run_title(config), config["seed"]
    if config["run_dir"] or not is_first_rank():
        root: Path | None = _chosen_root(config)
        where = f"in {root}"
    else:
        root = newest_run(Path("runs") / title, seed=seed, data=config["data"]["name"])
        where = f"of {title} with seed {seed} in runs/{title}"
    if root is not None and (root / "config.yaml").exists():
        saved = read_yaml(root / "config.yaml")
        config = _as_chosen(saved, config)
        _require_same_run(saved, config, arguments, hint="another run_dir= begins a run")
        _say(f"resume=auto: continues {root}")
        return config | {"resume": str(root)}, root
    root = root or _new_root(config)
    _say(f"resume=auto: found no run {where}; begins {root}")
    return config, root


def _resumed(root: Path, arguments: Sequence[str]) -> tuple[dict[str, Any], Path]:
    saved = read_yaml(root / "config.yaml")
    if saved["data"]["name"] == "distilled":
        raise BadConfig(
            f"resume: expected a run of trainers.fit, got a student; trainers.distill resume={root} continues it"
        )
    others = [text for text in arguments if not text.startswith(("resume=", "run_dir="))]
    for chosen in (text.partition("=")[2] for text in arguments if text.startswith("run_dir=")):
        if Path(chosen).expanduser().resolve() != root.resolve():
            raise BadConfig(
                f"run_dir: expected none beside resume={root}, which goes on in its own folder, got {chosen}"
            )
    config = override_saved(saved, others) | {"resume": str(root)}
    _require_same_run(saved, config, others, hint="without resume= a run begins")
    return config, root


def _as_chosen(saved: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with an environment as the run has chosen it, such as its look, on any machine."""
    env, chosen = config["task"]["env"], saved["task"]["env"]
    env = {key: chosen.get(key, value) if value == "auto" else value for key, value in env.items()}
    return config | {"task": config["task"] | {"env": env}}


def _require_same_run(saved: dict[str, Any], config: dict[str, Any], words: Sequence[str], *, hint: str) -> None:
    """What a run was begun with stays, and what a checkpoint holds of its loop is of one kind of data."""
    from trainers.command.same_run import changes  # numpy, which help is answered without

    for key, before, now in changes(saved, config, words=words):
        if key in ("seed", "data") or key.startswith("task.env."):
            raise run_differs(key, before, now, hint=hint)


def _require_something_to_do(root: Path, config: dict[str, Any], words: Sequence[str]) -> None:
    """A run with nothing left to do takes nothing that would be written down."""
    from trainers.command.same_run import changes
    from trainers.run_folder.read import read_results

    changed = [key for key, *_ in changes(read_yaml(root / "config.yaml"), config, words=words) if key != "parts"]
    key, counter = ("data.updates", "updates") if "updates" in config["data"] else ("task.env_steps", "env_steps")
    group, _, name = key.partition(".")
    results = read_results(root)
    done = results.get(counter, 0) if results.get("status") == "finished" else 0
    if done >= config[group][name] and any(key.partition(".")[0] not in UNSEEN for key in changed):
        raise BadConfig(
            f"{key}: expected more than the {done} that are done, got {config[group][name]}: nothing is left that "
            f"{', '.join(changed)} would change; python -m trainers.evaluate acts with others"
        )


def _new_root(config: dict[str, Any]) -> Path:
    if not is_first_rank():
        return _chosen_root(config)
    return new_run_folder(config["run_dir"], title=run_title(config))


def _chosen_root(config: dict[str, Any]) -> Path:
    """The folder that was typed or that the first rank chose."""
    if not (config["run_dir"] or os.environ.get(RUN_DIR)):
        raise BadConfig("run_dir: expected a path, since these ranks were started apart and cannot agree on one")
    return Path(config["run_dir"] or os.environ[RUN_DIR]).expanduser()


def _say(line: str) -> None:
    if is_first_rank():
        print(line, file=sys.stderr)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
