"""Training: a plan run in reverse, parameters beside an immutable network, optimisers, data, runs."""
