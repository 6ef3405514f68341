"""Environments whose state is observed: a vector of physical quantities, and nothing to draw.

They hold no GL context that could hang or clash, so they live in the process that plays them.
"""
