"""The chapter's ladder: Algorithms 23, 24 and 25 as one loop on observed states."""
