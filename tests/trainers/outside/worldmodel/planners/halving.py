"""Move to the best candidate and halve the spread."""

from worldmodel.planners.shooting import Proposal, Shooting


class Halving(Shooting):
    def __init__(self, *, horizon: int = 4, candidates: int = 16, iterations: int = 2, policy_candidates: int = 0):
        sizes = {"horizon": horizon, "candidates": candidates, "iterations": iterations}
        super().__init__(**sizes, init_std=1.0, policy_candidates=policy_candidates)

    def refit(self, proposal, pool):
        return Proposal(mean=pool.best(1).actions[:, 0], std=proposal.std / 2)


make = Halving
