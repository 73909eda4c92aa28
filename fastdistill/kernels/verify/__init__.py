"""Trees of guesses: how they are built, laid out and verified."""
