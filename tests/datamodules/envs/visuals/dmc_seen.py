"""Frames of the control suite through visual options, as one npz: `python dmc_seen.py OUT`.

A program of its own, because Mesa's GL must not enter the process that runs the other tests.
"""

import sys

import numpy as np

from datamodules.envs.errors import BadOption
from datamodules.envs.sources import open_env
from datamodules.envs.wrapper import background_of, source_of

TASK = {"task": "cartpole_swingup", "size": 48, "look": "fast"}


def rows(visuals: dict, *, seed: int = 3, **kwargs: object) -> dict[str, np.ndarray]:
    """Eight frames of one episode, and their masks where the options hand them on."""
    env = open_env(source="dmc", kwargs={**TASK, **kwargs}, visuals=visuals)
    tells = background_of(env)
    frames, masks = [env.reset(seed).pixels], [tells("pixels")]
    for action in np.linspace(-1, 1, 7 * env.spec.action_dim).reshape(7, -1):
        frames.append(env.step(action.astype(np.float32)).pixels)
        masks.append(tells("pixels"))
    facts = {"frames": np.stack(frames), "masks": np.stack(masks), "shape": np.array(env.spec.pixels)}
    facts["film"] = source_of(env).render(48)
    env.close()
    return facts


def refusal(ids: object) -> np.ndarray:
    """What a wrong camera is answered with."""
    try:
        open_env(source="dmc", kwargs=TASK, visuals={"camera": {"ids": ids}})
    except BadOption as error:
        return np.array(str(error))
    return np.array("accepted")


def main(out: str) -> None:
    """Write every fact."""
    groups = {
        "plain": rows({}),
        "behind": rows({"background": {}}),
        "again": rows({"background": {}}),
        "other": rows({"background": {}}, seed=4),
        "walker": rows({}, task="walker_walk"),
        "walker_behind": rows({"background": {}}, task="walker_walk"),
        "second": rows({"camera": {"ids": [1]}}),
        "both": rows({"camera": {"ids": ["lookatcart", 0]}}),
        "both_behind": rows({"camera": {"ids": [1, 0]}, "background": {}}),
    }
    facts = {f"{group}/{key}": value for group, found in groups.items() for key, value in found.items()}
    facts |= {"refused/number": refusal([0, 7]), "refused/name": refusal(["side"]), "refused/text": refusal("fixed")}
    np.savez(out, **facts)


if __name__ == "__main__":
    main(sys.argv[1])
