"""Student and teacher, with the tokenizers that they must share."""
