"""Students, embeddings and merged weights that need no training."""
