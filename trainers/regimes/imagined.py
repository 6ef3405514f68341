"""Learn value and policy in a trained model's imagination; the model stays as it is, no environment is opened."""

from pathlib import Path

from trainers import build
from trainers.checkpoint import DurableCheckpointIO
from trainers.imagined import Imagined, PolicyModule, load_model
from trainers.locate import locate
from trainers.module import WorldModelModule
from trainers.recordings import lead
from trainers.session import Course, Session
from worldmodel.spec import EnvSpec


def make(*, session: Session) -> Course:
    """A fresh policy on the model at data.model; a run that is resumed has its model in its own checkpoint."""
    config = session.config

    def build_module(spec: EnvSpec) -> WorldModelModule:
        agent = build.build_agent(config, spec)
        if not session.resumed:
            found = DurableCheckpointIO().load_checkpoint(locate(Path(config["data"]["model"]), key="data.model")[1])
            load_model(agent, found["state_dict"])
        return build.build_module(config, agent, PolicyModule)

    return lead(session, build_module, Imagined)
