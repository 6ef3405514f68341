"""Command-line overrides to one plain, resolved configuration."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules import parts
from trainers.command.arguments import CONFIGS
from trainers.run_folder.conversion import convert_config
from worldmodel.errors import SettingError
from worldmodel.limits import wrong_number, wrong_whole

SUITE_TASKS = Path(__file__).resolve().parents[1] / "data" / "suite_tasks.txt"
# mappings whose keys no file lists: what is in them is the user's choice
OPEN = ("task.visuals", "evaluation.visuals", "task.env.kwargs", "data.sampler")
# parts that are no group of their own: a name alone takes its own defaults, and options may follow it
NAMED = ("agent.encoder", "agent.decoder", "agent.vector_encoder", "agent.vector_decoder", "agent.heads")
# paths and addresses: any text, whatever it means to the grammar of overrides
PLAIN = ("data.uri", "data.model", "data.cache", "run_dir", "resume")
# groups that a run's configuration may lack: experiments and sizes change others, a decoder is the agent's, and runs of
# the past had no choice of an objective
ELSEWHERE = {"experiment", "size", "decoder", "objective"}
# task files that leave open which: task=gym:CartPole-v1 says it
TASK_KINDS = ("dmc", "gym", "vector")
# groups whose files need not list what the parts take
UNLISTED = ("planner", "dynamics", "objective", "policy")
# what keys may begin with that no file has: whoever takes them knows their names, a part, an environment or Lightning
ADDED = (*(f"{group}." for group in UNLISTED), *OPEN, *NAMED, "agent.weights.", "task.env.", "trainer.")
# what other commands, and other projects, call a key of this one
OTHER_COMMANDS = {"out": "run_dir", "logdir": "run_dir", "batch_size": "batch", "steps": "env_steps", "lr": "model"}
# what the library says, and what it means to whoever typed it
IN_WORDS = {
    r"^Could not override '(.*?)'\..*": r"\1: expected a key of this configuration, got another",
    r"^Key '.*' is not in struct full_key: (\S*).*": r"\1: expected a key of this configuration, got another",
    r"^Could not append to config\. An item is already at '(.*?)'\..*": r"\1: expected no + before a key that is there",
}


class BadConfig(SettingError, ValueError):
    """The configuration has an unknown key, a wrong name or a value out of range."""


def whole_number(key: str, text: str, *, least: int = 1) -> int:
    """A whole number from the command line; raises BadConfig for `key`."""
    if wrong := wrong_whole(int(text) if text.isdecimal() else None, least=least, shown=text):
        raise BadConfig(f"{key}: {wrong}")
    return int(text)


def finite_number(key: str, text: str, **bounds: float) -> float:
    """A number from the command line, within bounds as `limits.wrong_number` has them; raises BadConfig for `key`."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if wrong := wrong_number(number, shown=text, **bounds):
        raise BadConfig(f"{key}: {wrong}")
    return number


def true_or_false(key: str, text: str) -> bool:
    """A choice from the command line; raises BadConfig for `key`."""
    if text not in ("true", "false"):
        raise BadConfig(f"{key}: expected true or false, got {text!r}")
    return text == "true"


def groups() -> dict[str, list[str]]:
    """Config groups and the names that each offers."""
    names: dict[str, list[str]] = {}
    for folder in config_folders():
        for path in sorted(folder.glob("*/**/*.yaml")):
            group, *name = path.relative_to(folder).with_suffix("").parts
            names.setdefault(group, []).append("/".join(name))
    return names


def config_folders() -> list[Path]:
    """This project's folder of configurations, and those of parts."""
    return [CONFIGS, *(folder / "configs" for folder in parts.active())]


def activate_parts(overrides: Sequence[str], saved: Any = None) -> None:
    """Look for parts where `parts=` among the overrides says, else a saved configuration; raises PartsMissing."""
    said = [text.partition("=")[2] for text in overrides if text.startswith("parts=")]
    try:
        folders = yaml.safe_load(said[-1]) if said else saved
    except yaml.YAMLError as error:
        raise BadConfig(f"parts: expected a folder, or several as [a,b], got {said[-1]!r}") from error
    parts.activate([str(folder) for folder in (folders if isinstance(folders, list) else [folders]) if folder])


def task_names() -> list[str]:
    """Tasks with a file of their own, and every task of the dm_control suite."""
    own = [name for name in groups()["task"] if name not in (*TASK_KINDS, "none")]
    return sorted({*own, *SUITE_TASKS.read_text().split()})


def load_config(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose configs/fit.yaml with overrides into plain values; raises BadConfig with the nearest right names."""
    activate_parts(overrides)
    GlobalHydra.instance().clear()
    expanded = [*_expanded(overrides), *_without_task(overrides)]
    _refuse_unread(overrides)
    try:
        with initialize_config_dir(version_base=None, config_dir=str(CONFIGS)):
            return _plain(compose("fit", [*_search_path(), *expanded]))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise BadConfig(_explain(str(error), overrides)) from error


def _search_path() -> list[str]:
    folders = [f"file://{folder}" for folder in config_folders()[1:] if folder.is_dir()]
    return ["hydra.searchpath=[" + ",".join(map(quoted, folders)) + "]"] if folders else []


def choices(override: str) -> list[str]:
    """The overrides that a comma list or a range means: `seed=0,1` as `seed=0` and `seed=1`, any other as it is.

    A list in brackets is one value, and so is a text in quotes.

    Raises:
        BadConfig: another kind of sweep, such as `interval(0,1)`.
    """
    key, _, _ = override.partition("=")
    parsed = _parsed(override)
    if parsed is None or not parsed.is_sweep_override():
        return [override]
    if not (parsed.is_choice_sweep() or parsed.is_range_sweep()):
        raise BadConfig(f"{key}: expected a value or several with commas between them, got {override}")
    texts = list(parsed.sweep_string_iterator())
    if isinstance(sweep := parsed.value(), ChoiceSweep):
        # as typed: the library escapes the colon of gym:CartPole-v1
        plain = [isinstance(one, str) and not isinstance(one, QuotedString) for one in sweep.list]
        texts = [str(one) if is_plain else text for one, text, is_plain in zip(sweep.list, texts, plain, strict=True)]
    return [f"{key}={text}" for text in texts]


def override_saved(saved: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A saved configuration with overrides on top: group=name takes that file, dotted.key=value one value."""
    activate_parts(overrides, saved.get("parts"))
    config = OmegaConf.create(saved)
    OmegaConf.set_struct(config, True)
    _refuse_unread(overrides, config)
    try:
        for override in OverridesParser.create().parse_overrides(_expanded(overrides)):
            _apply(config, override)
        return _plain(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise BadConfig(_explain(str(error), overrides, config)) from error


def _refuse_unread(overrides: Sequence[str], saved: DictConfig | None = None) -> None:
    """A misspelt key that is added with a + would be read by nobody."""
    added = [text.lstrip("+").partition("=") for text in overrides if text.startswith("+")]
    for key, _, value in (one for one in added if one[0] not in groups() and not one[0].startswith(ADDED)):
        config = saved or _chosen(overrides)
        if key not in _known_keys(config):
            said = f"{key}: expected a key of this configuration, got another"
            raise BadConfig("; ".join(filter(None, [said, _near(f"{key}={value}", config)])))


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return plain | {"parts": [str(folder) for folder in parts.active()]}


def _apply(config: DictConfig, override: Override) -> None:
    key, value = override.key_or_group, override.value()
    if key == "experiment":
        raise BadConfig(
            f"{override.input_line}: expected no experiment beside the configuration of a run; leave it out"
        )
    if override.is_delete() or override.is_sweep_override():
        raise BadConfig(f"{override.input_line}: expected key=value or group=name, since the run has its configuration")
    if key == "render" and "look" in config.task.env:
        config.task.env.look = value  # the saved look is what was drawn, no longer a reference to this key
    if key not in groups():
        added = override.is_add() or override.is_force_add()
        OmegaConf.update(config, key, value, force_add=added, merge=key not in OPEN)
    elif value in groups()[key]:
        files = (folder / key / f"{value}.yaml" for folder in config_folders())
        chosen: Any = OmegaConf.load(next(path for path in files if path.exists()))
        chosen.pop("defaults", None)  # choices for other groups are for a configuration that is yet to be made
        config[key] = chosen
    else:
        raise BadConfig(_near(f"{key}={value}", config))


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration saved with a run: values only, nothing in it can name code."""
    try:
        saved = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise BadConfig(f"{path.parent}: expected a run folder with {path.name}, found none") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"{path}: expected a configuration, got {' '.join(str(error).split())}") from error
    if not isinstance(saved, dict):
        raise BadConfig(f"{path}: expected a mapping, got {type(saved).__name__}")
    if missing := sorted({path.parent.name for path in CONFIGS.glob("*/*.yaml")} - saved.keys() - ELSEWHERE):
        raise BadConfig(f"{path}: expected the configuration of a run, missing {', '.join(missing)}")
    return convert_config(saved, path=path)


def differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The dotted keys in which two configurations differ, with the value of each; a part by another name as a whole."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        # a name alone is how configurations of the past have a part without options
        if before != now and now != {"name": before}:
            yield key, before, now
    elif before.get("name") != now.get("name"):
        yield key, before.get("name"), now.get("name")
    else:
        for name in dict.fromkeys((*before, *now)):
            yield from differences(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))


def run_differs(key: str, before: Any, now: Any, *, run: str = "the run to resume", hint: str = "") -> BadConfig:
    """The error of going on with a run that has another value than is asked for."""
    return BadConfig(f"{key}: expected {before} as in {run}, got {now}" + (f"; {hint}" if hint else ""))


def run_title(config: Mapping[str, Any]) -> str:
    """What a run is called: its task, or, where it has none, where its batches come from."""
    return str(config["task"]["name"] or config["data"]["name"])


def is_student(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a student, which has no planner and no model of its own."""
    return bool(config["agent"].get("name") == "student")


def _without_task(overrides: Sequence[str]) -> list[str]:
    """Who learns from recordings acts in a task that is typed, not in one that an experiment brings along."""
    keys = {text.partition("=")[0] for text in overrides}
    return ["task=none"] if "data=offline" in overrides and "experiment" in keys and "task" not in keys else []


def _expanded(overrides: Sequence[str]) -> list[str]:
    return [part for text in overrides if not text.startswith("parts=") for part in _expand(text)]


def _expand(override: str) -> list[str]:
    """task=<suite task without a file> and task=<kind>:<which> become a file and its task; open keys are added."""
    key, _, name = override.partition("=")
    if key in OPEN or key.startswith(tuple(f"{mapping}." for mapping in OPEN)):
        return [f"++{override}"]
    if key in NAMED and re.fullmatch(r"[a-z]\w*", name) and name not in ("null", "true", "false"):
        return [f"{key}=null", f"{key}={{name: {name}}}"]  # by null, since mappings are merged
    if key.lstrip("+") in PLAIN:
        return [f"{key}={quoted(name)}"]
    if key != "task" or name in groups()["task"]:
        return [override]
    kind, _, which = name.partition(":")
    if kind in TASK_KINDS and which:
        return [f"task={kind}", f"task.env.task={which}"]
    if name not in task_names():
        near = get_close_matches(name, task_names(), n=3, cutoff=0.4)
        raise BadConfig(f"no task {name!r}" + (f", did you mean {', '.join(near)}?" if near else ""), key="task")
    return ["task=dmc", f"task.env.task={name}"]


def quoted(text: str) -> str:
    """Text that the grammar of overrides takes as one string, or as null, as it is; any other in quotes."""
    override = _parsed(f"key={text}")
    if override is not None and not override.is_sweep_override() and isinstance(override.value(), str | None):
        return text
    # the grammar reads backslashes as escapes only before a quote, which here ends with every text
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def _parsed(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_overrides([override])[0]
    except HydraException:
        return None


def _explain(message: str, overrides: Sequence[str], saved: DictConfig | None = None) -> str:
    """The library's message in one line, with near names for whatever an override misspelt."""
    known = saved or _chosen(overrides)
    first, whole = " ".join(message.split("\n")[0].split()), " ".join(message.split())
    first = next((re.sub(said, meaning, whole) for said, meaning in IN_WORDS.items() if re.match(said, whole)), first)
    hints = [hint for text in overrides if (hint := _near(text, known))]
    named = hints or any(text.partition("=")[0] in first for text in overrides)
    wrong = [text for text in overrides if _parsed(_expand(text)[0]) is None] or overrides
    return "; ".join([first, *hints] if named else [first, "in " + " ".join(wrong)])


def _near(override: str, config: DictConfig) -> str:
    key, _, value = override.lstrip("+~").partition("=")
    if key == "task":
        return ""  # a name that no task has was refused when it was expanded
    if key in groups():
        known = groups()[key]
        near = get_close_matches(value, known, n=3, cutoff=0.4) or known
        return "" if value in known else f"{key}={value}: did you mean {', '.join(near)}?"
    known_keys = _known_keys(config)
    if key in known_keys or override.startswith("+") or _expand(override) != [override]:
        return ""
    last = key.rpartition(".")[2]
    elsewhere = [other for other in known_keys if other.rpartition(".")[2] == OTHER_COMMANDS.get(last, last)]
    near = elsewhere[:3] or get_close_matches(key, known_keys, n=3, cutoff=0.5)
    unlisted = f" +{key} for an option that its file does not list" if key.partition(".")[0] in UNLISTED else ""
    return f"{key}: did you mean {', '.join(near)}?{unlisted}" if near else ""


def _chosen(overrides: Sequence[str]) -> DictConfig:
    """The configuration of the groups' files that are chosen, whatever else is wrong: its keys can be meant."""
    named = [text for text in _expanded(overrides) if (parts := text.partition("="))[2] in groups().get(parts[0], ())]
    with initialize_config_dir(version_base=None, config_dir=str(CONFIGS)):
        return compose("fit", [*_search_path(), *named])


def _known_keys(config: DictConfig) -> list[str]:
    keys = list(_dotted(OmegaConf.to_container(config, resolve=False)))
    sources = [OmegaConf.load(CONFIGS / "data" / f"{name}.yaml") for name in groups()["data"]]
    others = (key for source in sources for key in _dotted(OmegaConf.to_container(source, resolve=False), "data"))
    return list(dict.fromkeys([*keys, *others]))


def _dotted(tree: Any, prefix: str = "") -> list[str]:
    if not isinstance(tree, dict):
        return [prefix]
    inner = [path for key, value in tree.items() for path in _dotted(value, f"{prefix}.{key}" if prefix else str(key))]
    return [prefix, *inner] if prefix else inner
