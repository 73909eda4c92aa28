"""Divergences between laws of the next token, of logits and of hidden states; log probabilities; transport between batches."""
