"""Orders, pairs and contrasts."""
