"""Policies π(a | s) over latents: what acts, and what planners are seeded with. How they learn is `policies`'."""

from worldmodel.interfaces import Policy

__all__ = ["Policy"]
