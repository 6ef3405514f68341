"""Learn from recorded episodes; no environment is opened, unless a task is named to be evaluated in."""

from trainers import build
from trainers.recorded_course import lead
from trainers.session import Course, Session


def make(*, session: Session) -> Course:
    """A fresh agent on the episodes at data.uri."""
    config = session.config
    return lead(session, lambda spec: build.build_module(config, build.build_agent(config, spec)))
