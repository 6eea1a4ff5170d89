"""Hugging Face directories: config.json, safetensors, and their layout, in and out."""

from models.huggingface.checkpoint import load_config, load_pretrained
from models.huggingface.config import config_from_json, config_to_json
from models.huggingface.export import save_pretrained

__all__ = [
    "config_from_json",
    "config_to_json",
    "load_config",
    "load_pretrained",
    "save_pretrained",
]
