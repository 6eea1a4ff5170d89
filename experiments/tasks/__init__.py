"""The embedded tasks: problems, their answers, their tokenizers."""
