"""Keep a thread that waits for another one from burning the core that the other one needs."""

import os

SPINS = "30000"  # turns of an empty loop before it sleeps; libgomp takes 300,000 by itself


def bound_spinning() -> None:
    """Let threads that wait for one another sleep at last; what OMP_WAIT_POLICY or GOMP_SPINCOUNT says is kept.

    Call before torch is loaded, whose libgomp reads the environment then. Sooner, every one of an update's thousands of
    parallel sections waits for a thread to wake up; later, a program beside this one gets no turn on the core that it
    shares: docs/log.md, "Two threads and a busy core".
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
