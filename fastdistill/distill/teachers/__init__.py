"""A teacher that is known in part, is kept in a file, or is several."""
