"""What the controller says about every action."""

from dataclasses import dataclass

# from the best to the last resort; "stopped" stays until it is released by hand
SOURCES = ("plan", "shifted_plan", "policy", "safe", "stopped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One decision.

    Args:
        number: of the decision since the last reset.
        source: one of SOURCES, what chose the action.
        observation: "ok", or why the observation was not used.
        late: the decision took longer than a period.
        latency_ms: from the call to the action.
        margin_ms: left of the decision's budget; below 0 it was exceeded.
        filter_ms: of that, what the observation took to become a latent.
        plan_age: decisions since the plan was made whose action this is; -1 where it is none of a plan's.
        faults: safe actions in a row, this one included.
        limited: the action was moved into bounds or slowed by the rate limit.
        predicted_return: what the planner expects; NaN without a new plan.
        prediction_error: root mean square between the latent that was predicted for this frame and the one that was
            inferred from it; NaN where there is no pair.
        disagreement: root mean square spread between an ensemble's predictions of that latent; NaN without an ensemble.
        alarm: such errors are larger than on recorded episodes: the robot sees or does what the model does not know.
        message: what went wrong, if anything.
    """

    number: int
    source: str
    observation: str
    late: bool
    latency_ms: float
    margin_ms: float
    filter_ms: float
    plan_age: int
    faults: int
    limited: bool
    predicted_return: float
    prediction_error: float
    disagreement: float = float("nan")
    alarm: bool = False
    message: str = ""
