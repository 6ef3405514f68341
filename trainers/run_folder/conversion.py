"""Records of runs and checkpoints of earlier versions in today's form; the only place that knows what they were."""

from collections.abc import Mapping
from typing import Any

from worldmodel.errors import UserError

# of config.yaml and of checkpoints; 1 is what had no number (commit dbaaab1 and before), 2 had the actor beside its
# learner
FORMAT = 3

# the loops' keys among a checkpoint's callbacks, which were their classes' names
_LOOPS = ("Algorithm26", "Offline", "Imagined", "Ladder")

# when one image was all that was observed, its parts were the agent's own; now they are the first of a list
_WEIGHTS = {
    "agent.pixels.": "agent.norm.parts.0.",
    "agent.encoder.": "agent.encoder.parts.0.",
    "agent.decoder.": "agent.decoder.parts.0.",
    "agent.objective.encoder.module.": "agent.objective.encoder.module.parts.0.",
}


_WEIGHTS_2 = {"agent.actor.": "agent.policy.actor.", "agent.imagination.": "agent.policy."}


# keys that came later, in the sections that have a name of those listed; None: in every one
_ADDED: dict[tuple[str, str], tuple[object, tuple[str, ...] | None]] = {
    ("trainer", "rank_timeout_s"): (600, None),
    ("trainer", "cuda_graphs"): (False, None),
    ("data", "pool"): ("local", ("online",)),
    ("data", "across_episodes"): (False, None),
    ("data", "base_std"): (0.8, ("online",)),
    ("data", "actions"): (None, ("offline", "imagined")),
    ("data", "damage_limit"): (0.05, ("online", "offline", "imagined")),
    ("data", "left_out_limit"): (1.0, ("offline", "imagined")),  # they went on whatever was left out
    ("agent", "replan"): (1, ("latent_mpc",)),
    ("agent", "plan_precision"): ("float32", ("latent_mpc",)),
    ("agent", "continuation"): (False, ("latent_mpc",)),  # they learned without
    ("agent", "explore_pink"): (0.0, ("latent_mpc",)),
    ("agent", "explore_silent"): (0.0, ("latent_mpc",)),
    ("agent", "explore_random"): (0.0, ("latent_mpc",)),
    ("agent", "random_shift"): (0, ("latent_mpc",)),
}


# keys that have another name now, in the sections that have a name of those listed
_RENAMED: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("policy", "starts"): ("controllers", ("gps", "mdgps")),  # of imagined rollouts elsewhere, which sizes set
}


class FormatUnknown(UserError):
    """A run or checkpoint of a version that this one cannot read."""


def convert_config(config: Mapping[str, Any], *, path: object) -> dict[str, Any]:
    """A run's configuration in today's form, without its format number; raises FormatUnknown, which names `path`."""
    converted = dict(config)
    version = _require_known(converted.pop("format", 1), path)
    if version < 2:
        _from_1(converted)
    for (section, key), (value, names) in _ADDED.items():
        options = converted.get(section)
        if isinstance(options, Mapping) and (names is None or options.get("name") in names):
            converted[section] = {key: value, **options}
    for (section, key), (name, names) in _RENAMED.items():
        options = converted.get(section)
        if isinstance(options, Mapping) and options.get("name") in names and key in options:
            converted[section] = {name if one == key else one: value for one, value in options.items()}
    return converted


def convert_checkpoint(checkpoint: Mapping[str, Any], *, path: object) -> dict[str, Any]:
    """A checkpoint's content in today's form; raises FormatUnknown as `convert_config` does."""
    converted = dict(checkpoint)
    version = _require_known(converted.get("format", 1), path)
    if version < 2:
        callbacks, weights = converted.get("callbacks", {}), converted.get("state_dict", {})
        if any(name in callbacks for name in _LOOPS):
            converted["callbacks"] = {"loop" if name in _LOOPS else name: part for name, part in callbacks.items()}
        if "agent.pixels.mean" in weights:
            converted["state_dict"] = _renamed(weights, _WEIGHTS)
    if version < 3 and "state_dict" in converted:
        converted["state_dict"] = _renamed(converted["state_dict"], _WEIGHTS_2)
    loop = converted.get("callbacks", {}).get("loop", {})
    if "ranks" in loop and "generation" not in loop:  # their number could not change
        converted["callbacks"] = {**converted["callbacks"], "loop": {"generation": 0, **loop}}
    skipped = converted.get("module", {}).get("skipped", ())
    if len(skipped) == 2:  # all and in a row; since then the most in a row too
        converted["module"] = {**converted["module"], "skipped": [*skipped, skipped[1]]}
    return converted


def convert_spec(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec.json, in which one image had no name and the renderer stood beside the facts."""
    images = {"images": {"pixels": fields["pixels"]}} if "pixels" in fields else {}
    return images | {name: fact for name, fact in fields.items() if name not in ("renderer", "pixels")}


def convert_versions(versions: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a versions.json, with the renderer that stood in the spec.json of then."""
    return {**({"renderer": spec["renderer"]} if "renderer" in spec else {}), **versions}


def convert_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a results.json, in which a student's return had no name but its own."""
    own = {"return_mean": results["student_return"]} if "student_return" in results else {}
    return {**own, **results}


def convert_sweep(record: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a sweep.json, which did not say how its runs were started."""
    return {"options": {}, **record}


def _from_1(config: dict[str, Any]) -> None:
    if isinstance(config.get("data"), Mapping):
        config["data"] = {"name": "online", **config["data"]}  # there were no others
    if isinstance(config.get("agent"), Mapping):
        agent = dict(config["agent"])
        share = agent.pop("decode_fraction", 0.25)
        config.setdefault("objective", {"name": "reconstruction", "decode_fraction": share})
        if "heads" in agent:
            agent["heads"] = {"name": "scalar", **agent["heads"]}
        config["agent"] = agent


def _renamed(weights: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, Any]:
    def now(name: str) -> str:
        for before, after in prefixes.items():
            if name.startswith(before):
                return after + name.removeprefix(before)
        return name

    return {now(name): weight for name, weight in weights.items()}


def _require_known(version: Any, path: object) -> int:
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise FormatUnknown(
            f"{path}: expected a run of format {FORMAT} or earlier, got {version!r}: "
            "a later version wrote it, which also reads it"
        )
    return version
