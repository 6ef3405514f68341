"""Refuse numbers that no run can have, before anything is loaded or started."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from datamodules.storage.budget import parse_bytes
from trainers.command.configuration import BadConfig
from worldmodel.limits import wrong_number, wrong_whole

# whole numbers and the least that each may be; a key that the chosen parts do not have is left out
COUNTS = {
    "seed": 0,
    "task.env_steps": 1,
    "data.envs": 1,
    "data.seed_episodes": 1,
    "data.batch": 1,
    "data.length": 2,
    "data.flush_rows": 1,
    "data.max_restarts": 0,
    "data.blank_frames": 0,
    "data.frozen_frames": 0,
    "data.updates": 1,
    "data.log_every": 1,
    "data.validate_every": 1,
    "data.save_every": 1,
    "evaluation.every": 1,
    "evaluation.episodes": 0,
    "evaluation.final_episodes": 1,
    "evaluation.envs": 1,
    "checkpoint.keep": 1,
    "agent.unroll": 0,
    "agent.replan": 1,
    "agent.random_shift": 0,
}
# bounds of numbers, and which must be within them
NUMBERS: tuple[tuple[dict[str, float], tuple[str, ...]], ...] = (
    ({"above": 0}, ("data.step_timeout_s", "data.reset_timeout_s", "data.restart_window_s", "data.base_std")),
    ({"above": 0}, ("trainer.rank_timeout_s", "optimizer.grad_clip", "optimizer.eps")),
    ({"above": 0, "most": 1}, ("agent.discount",)),
    ({"least": 0}, ("agent.explore_std", "data.update_ratio")),
    ({"least": 0, "below": 1}, ("data.validation_share",)),
    ({"least": 0, "most": 1}, ("agent.explore_pink", "agent.explore_silent", "agent.explore_random")),
    ({"least": 0, "most": 1}, ("data.damage_limit", "data.left_out_limit")),
)
WEIGHTS = ("optimizer.learning_rates", "agent.weights")
CHOICES = {
    "render": ("auto", "suite", "fast"),
    "trainer.cuda_graphs": (False, True),
    "data.pool": ("local", "ray"),
    "data.prefetch": ("auto", True, False),
    "data.collection": ("synchronous", "asynchronous"),
    "data.across_episodes": (True, False),
    "agent.act_with": ("planner", "actor"),
    "agent.vector_norm": ("statistics", "as_is"),
    "data.alignment": (None, "arrival", "departure"),
    "data.actions": (None, "arrival", "departure"),
    "data.evaluate": (False, True),
    "logger.name": ("csv", "wandb", "tensorboard"),
    "logger.offline": (None, True, False),
    # float16 would need loss scaling that knows of gradients clipped by group, bfloat16 does not
    "trainer.precision": ("auto", "32-true", "32", 32, "bf16-mixed", "bf16"),
}
# options by name, such as {name: scalar}; of the first also a name alone
PARTS = ("agent.encoder", "agent.decoder", "agent.vector_encoder", "agent.vector_decoder")
OPTIONS = ("agent.heads", "agent.encoders", "agent.decoders", "policy.actor", "data.sampler")
TEXTS = ("logger.project", "logger.group")
LARGEST_SEED = 2**32 - 1
_ABSENT = object()


def check(config: Mapping[str, Any]) -> None:
    """Raise BadConfig that names the key, what it may be and what it is."""
    for key, least in COUNTS.items():
        _refuse(config, key, partial(wrong_whole, least=least))
    for bounds, keys in NUMBERS:
        for key in keys:
            _refuse(config, key, partial(wrong_number, **bounds))
    for key in [f"{folder}.{name}" for folder in WEIGHTS for name in _mapping(config, folder)]:
        if key.startswith("agent.weights.") and config["agent"]["weights"][key.rpartition(".")[2]] is None:
            continue  # the default of the part that the weight is of
        _refuse(config, key, partial(wrong_number, least=0))
    for key, names in CHOICES.items():
        _require(config, key, " or ".join(str(name) for name in names), lambda name, names=names: name in names)
    for key in PARTS:
        _require(config, key, "a name, or options with one", lambda part: isinstance(part, str | Mapping))
    for key in OPTIONS:
        _require(config, key, f"options, such as {key}.name=NAME", lambda part: isinstance(part, Mapping))
    for key in TEXTS:
        _require(config, key, "text, in quotes where it looks like a number", lambda text: isinstance(text, str | None))
    _require(config, "data.capacity", "a whole number of at least 1, or bytes like 12GB", _is_capacity)
    _require(config, "data.memory_budget", "a share above 0 and at most 1, or bytes like 8GB", _is_budget)
    _require(config, "seed", f"at most {LARGEST_SEED}", lambda n: n <= LARGEST_SEED)
    _require(config, "logger.tags", "a list of texts, such as [a,b]", _are_texts)
    for key in ("task.visuals", "evaluation.visuals"):
        _require(config, key, "visual options by name, such as {grayscale: {}}", _are_options)
    _check_steps(config)
    _check_rank_timeout(config)
    _check_source(config)
    _check_acting(config)
    logger = _mapping(config, "logger").get("name", "csv")
    if logger != "csv" and find_spec(logger) is None:
        raise BadConfig(f"logger.name: expected a package that is installed, got {logger}: pip install {logger}")
    _check_finite(config)


def _check_steps(config: Mapping[str, Any]) -> None:
    """What an objective looks ahead must fit into a window; imagination has a model that has learned."""
    data = _mapping(config, "data")
    if "length" not in data or data.get("name") == "imagined":
        return
    for key, name in (("objective", "steps"), ("agent", "unroll")):
        steps = _mapping(config, key).get(name)
        if type(steps) is int and steps >= data["length"]:
            raise BadConfig(f"{key}.{name}: expected less than data.length={data['length']} rows, got {steps}")


def _check_rank_timeout(config: Mapping[str, Any]) -> None:
    """A rank whose environment is started again stands still for a while."""
    if all(_at(config, f"trainer.{key}") in (1, "1", _ABSENT) for key in ("devices", "num_nodes")):
        return
    timeout_s, data = _at(config, "trainer.rank_timeout_s"), _mapping(config, "data")
    longest_s = data.get("step_timeout_s", 0.0) + data.get("reset_timeout_s", 0.0)
    if timeout_s is not _ABSENT and timeout_s <= longest_s:
        expected = f"more than data.step_timeout_s + data.reset_timeout_s = {longest_s:g}"
        raise BadConfig(f"trainer.rank_timeout_s: expected {expected}, got {timeout_s}")


def _check_source(config: Mapping[str, Any]) -> None:
    """Every kind of data needs what it is made of."""
    kind = _mapping(config, "data").get("name")
    if kind == "states":
        raise BadConfig("data: expected online, got states of an earlier version: start anew, experiment=chapter/alg25")
    if kind == "online" and _mapping(config, "task").get("source") is None:
        raise BadConfig("task: expected an environment to act in, got none; data=offline learns without")
    if kind == "offline" and _mapping(config, "data")["uri"] is None:
        raise BadConfig("data.uri: expected scheme:path of recorded episodes, got none; see docs/offline.md")
    if kind == "imagined" and _mapping(config, "data")["model"] is None:
        raise BadConfig("data.model: expected a run folder or a checkpoint, got none")
    if kind == "imagined" and _mapping(config, "data")["evaluate"] and _mapping(config, "task").get("source") is None:
        raise BadConfig("task: expected task=NAME to act in for data.evaluate=true, the model knows recordings alone")
    if kind == "imagined" and _mapping(config, "policy").get("name") is None:
        raise BadConfig("policy: expected one to learn, such as policy=backprop, got none")


def _check_acting(config: Mapping[str, Any]) -> None:
    """What is to act must be there: a student has its policy alone, and an actor has no plan to go on with."""
    agent, policy = _mapping(config, "agent"), _mapping(config, "policy").get("name")
    acts = agent.get("act_with")
    if agent.get("name") == "student":
        for group in ("planner", "policy", "dynamics"):
            if (name := _mapping(config, group).get("name")) is not None:
                raise BadConfig(f"{group}: expected none, since a student has a policy of its own alone, got {name}")
        if acts != "actor":
            raise BadConfig(f"agent.act_with: expected actor, since a student has no planner, got {acts}")
    elif acts == "actor" and policy is None:
        raise BadConfig("agent.act_with: expected planner, or a policy beside policy=none, got actor")
    elif acts == "actor" and agent.get("replan", 1) != 1:
        raise BadConfig(f"agent.replan: expected 1, since an actor has no plan to go on with, got {agent['replan']}")


def _check_finite(tree: Any, key: str = "") -> None:
    """No number anywhere may be infinite or NaN."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            _check_finite(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, float) and not math.isfinite(tree):
        raise BadConfig(f"{key}: expected a finite number, got {tree}")


def _require(config: Mapping[str, Any], key: str, expected: str, holds: Any) -> None:
    _refuse(config, key, lambda value: "" if holds(value) else f"expected {expected}, got {value!r}")


def _refuse(config: Mapping[str, Any], key: str, wrong: Callable[[Any], str]) -> None:
    """Raise BadConfig where there is a value and something is wrong with it."""
    value = _at(config, key)
    if value is not _ABSENT and (said := wrong(value)):
        raise BadConfig(f"{key}: {said}")


def _at(config: Mapping[str, Any], key: str) -> Any:
    folder, _, name = key.rpartition(".")
    return (_mapping(config, folder) if folder else config).get(name, _ABSENT)


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The part of the configuration under a dotted key, empty where there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name, {})
        if not isinstance(value, Mapping):
            raise BadConfig(f"{key}: expected keys and values, got {value!r}")
    return value


def _are_options(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping) and all(isinstance(v, Mapping) for v in value.values()))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_capacity(value: Any) -> bool:
    return _is_bytes(value) or not wrong_whole(value)


def _is_budget(value: Any) -> bool:
    return _is_bytes(value) or not wrong_number(value, above=0, most=1)


def _is_bytes(value: Any) -> bool:
    try:
        return isinstance(value, str) and parse_bytes(value) > 0
    except ValueError:
        return False
