"""Hidden states, attention and relations of tokens."""
