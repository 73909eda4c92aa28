"""Training: a plan in reverse, parameters beside the network, what they learn from, and runs that survive."""
