"""Facts about datamodules.envs.dmc and dm_control itself, written as one npz: `python dmc_facts.py OUT`.

A program of its own, because Mesa's GL must not enter the process that runs the other tests (it loads an LLVM that
crashes together with Triton's).
"""

import sys

import numpy as np

from datamodules.envs import dmc, gl

# a repeat that does not divide the 1000 control steps of an episode: the last decision is shorter
SIZE, SEED, REPEAT = 32, 5, 6
# one of each suite family whose default camera is not the first
SHOWN = ("dog_fetch", "lqr_lqr_2_1", "quadruped_walk", "quadruped_fetch")
BENCHMARKS = ("cartpole_swingup", "cheetah_run", "reacher_easy")


def actions_for(action_dim: int, count: int) -> np.ndarray:
    """[count, A] actions in [-1, 1], the same in every process."""
    return np.random.default_rng(0).uniform(-1.0, 1.0, (count, action_dim)).astype(np.float32)


def own_loop(task: str) -> dict[str, np.ndarray]:
    """dm_control alone: each control step's reward, the closing discount and the first frame of an episode."""
    from dm_control import suite

    domain, name = dmc.split_task(task, suite.ALL_TASKS)
    env = suite.load(domain, name, task_kwargs={"random": SEED})
    row, spec, rewards = env.reset(), env.action_spec(), []
    first = env.physics.render(SIZE, SIZE, camera_id=0)
    assert (spec.minimum == -1).all() and (spec.maximum == 1).all()
    actions = actions_for(spec.shape[0], 1000)
    while not row.last():
        row = env.step(actions[len(rewards) // REPEAT])
        rewards.append(row.reward)
    return {"rewards": np.array(rewards), "discount": np.array(row.discount), "first": first}


def episode(env: dmc.DmcEnv, seed: int, count: int) -> dict[str, np.ndarray]:
    """Up to `count` decisions of DmcEnv, as stacked rows."""
    rows = [env.reset(seed)]
    for action in actions_for(env.spec.action_dim, count):
        rows.append(env.step(action))
        if rows[-1].is_last:
            break
    fields = ("pixels", "reward", "is_first", "is_last", "is_terminal", "env_steps")
    return {name: np.array([getattr(row, name) for row in rows]) for name in fields}


def terminated() -> dict[str, np.ndarray]:
    """lqr ends by termination once its state is zero."""
    env = dmc.make(task="lqr_lqr_2_1", size=SIZE, action_repeat=REPEAT)
    env.reset(0)
    with env.env.physics.reset_context():
        env.env.physics.data.qpos[:] = 0
    row = env.step(np.zeros(1, np.float32))
    moved = abs(env.env.physics.control()).max()
    env.reset(0)
    env.step(np.ones(1, np.float32))
    facts = {"flags": np.array([row.is_last, row.is_terminal]), "env_steps": np.array(row.env_steps)}
    facts |= {"controls": np.array([moved, env.env.physics.control()[0]]), "limit": np.array(env.spec.episode_steps)}
    facts["terminates"] = np.array([env.spec.terminates, dmc.make(task="cartpole_swingup", size=SIZE).spec.terminates])
    env.close()
    return facts


def looks() -> dict[str, np.ndarray]:
    """The suite's look against dm_control's own picture, the fast one, and what "auto" resolves to."""
    env = dmc.make(task="cartpole_swingup", size=SIZE, look="suite")
    facts = {"suite": env.reset(SEED).pixels, "big": env.render(200)}
    env.close()
    software = np.array(gl.is_software(env.renderer))
    names = [_auto_look()]
    gl.is_software = lambda renderer: False
    return facts | {"auto": np.array([*names, _auto_look()]), "software": software}


def shown(task: str, episodes: int = 8) -> np.ndarray:
    """Pixels of the agent in the first frame of each episode: of its skin, or of geoms of bodies that can move."""
    from mujoco import mjtObj

    env = dmc.make(task=task, size=64)
    model, counts = env.env.physics.model, []
    moving = model.body_dofnum[model.body_rootid[model.geom_bodyid]] > 0
    for seed in range(episodes):
        env.reset(seed)
        numbers, kinds = np.moveaxis(env._camera(env._views["pixels"][0], 64).render(segmentation=True), -1, 0)
        geoms = numbers[kinds == int(mjtObj.mjOBJ_GEOM)]
        counts.append(moving[geoms].sum() + (kinds == int(mjtObj.mjOBJ_SKIN)).sum())
    env.close()
    return np.array(counts)


def _auto_look() -> str:
    env = dmc.make(task="cartpole_swingup", size=SIZE, look="auto")
    env.close()
    return env.spec.look


def main(out: str) -> None:
    """Write every fact."""
    facts: dict[str, np.ndarray] = {}
    for task in BENCHMARKS:
        env = dmc.make(task=task, size=SIZE, action_repeat=REPEAT, look="fast")
        groups = {"own": own_loop(task), "ours": episode(env, SEED, 1000)}
        groups["other"], groups["again"] = episode(env, SEED + 1, 20), episode(env, SEED, 20)
        env.close()
        facts |= {f"{task}/{group}/{key}": value for group, rows in groups.items() for key, value in rows.items()}
    facts |= {f"lqr/{key}": value for key, value in terminated().items()}
    facts |= {f"shown/{task}": shown(task) for task in ("cartpole_swingup", *SHOWN)}
    facts |= {f"look/{key}": value for key, value in looks().items()}
    np.savez(out, **facts)


if __name__ == "__main__":
    main(sys.argv[1])
