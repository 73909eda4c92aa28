"""What a model sees in training."""
