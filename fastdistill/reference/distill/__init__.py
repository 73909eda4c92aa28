"""Divergences between the laws of a student and of a teacher."""
