"""Student and teacher whose vocabularies differ."""
