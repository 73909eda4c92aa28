"""Jacobi decoding: fixed points, windows, pools of n-grams."""
