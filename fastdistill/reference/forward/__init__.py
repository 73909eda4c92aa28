"""Rows of a forward: products with packed weights, statistics of logits, exp and log."""
