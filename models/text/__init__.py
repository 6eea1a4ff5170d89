"""Tokenizers and prompts of Hugging Face directories."""
