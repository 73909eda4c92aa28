"""Whole systems beside others and their targets."""
