"""A bundle on a robot: the controller and what it is made of, the policy server, the real-time loop."""
