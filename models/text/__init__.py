"""Tokenizers and prompts of Hugging Face directories, as a training loop needs them."""

from models.text.tokenizer import (
    Render,
    decode,
    encode,
    encode_response,
    eos_ids,
    load_tokenizer,
    opens_thinking,
    render_prompt,
    token_bytes,
)

__all__ = [
    "Render",
    "decode",
    "encode",
    "encode_response",
    "eos_ids",
    "load_tokenizer",
    "opens_thinking",
    "render_prompt",
    "token_bytes",
]
