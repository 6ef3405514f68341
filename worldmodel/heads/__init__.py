"""Scalars read off a latent: rewards and values."""

from worldmodel.heads.head import Head

__all__ = ["Head"]
