"""Learn f(s, a) on observed states and plan through it (Algorithms 23 to 25)."""

from contextlib import closing
from dataclasses import replace

from datamodules.transitions import StateData, TransitionSet
from trainers import build
from trainers.configuration import BadConfig
from trainers.ladder.loop import Ladder
from trainers.ladder.play import StateEvaluator
from trainers.session import Course, Session


def make(*, session: Session) -> Course:
    """Environments in this process, the data they fill, and the loop."""
    config, stack, data = session.config, session.stack, session.config["data"]
    if session.trainer.world_size > 1:
        raise BadConfig(f"trainer.devices: expected 1 for data=states, got {session.trainer.world_size} processes")
    if config["dynamics"]["name"] == "linear" and data["updates_per_episode"]:
        got = f"got {data['updates_per_episode']}"
        raise BadConfig(f"data.updates_per_episode: expected 0 for dynamics=state_linear, solved as it stands; {got}")
    envs = [stack.enter_context(closing(build.open_states(config))) for _ in range(data["envs"])]
    spec = envs[0].spec
    module = build.build_module(config, build.build_state_agent(config, spec))
    transitions = TransitionSet(seed=config["seed"])
    options = config["evaluation"]
    evaluator = StateEvaluator(lambda: build.open_states(config), envs=options["envs"], seed=config["seed"])
    stack.enter_context(closing(evaluator))
    surroundings = replace(session.surroundings(spec, None), evaluator=evaluator)
    cycle = Ladder(surroundings, envs, transitions, config=config)
    return Course(module, StateData(transitions, batch=data["batch"]), cycle, spec, renderer="none")
