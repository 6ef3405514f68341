"""Values Q(z, a) of finitely many actions: which actions those are, and networks that value all of them at once."""
