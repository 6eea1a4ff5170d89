"""Language models as pure functions on pytrees."""

from models.checkpoint import load_config, load_pretrained
from models.checkpoint_export import save_pretrained
from models.config import Llama3RopeScaling, ModelConfig
from models.generate import Generation, generate
from models.parameters import abstract, count, declare, init, shardings
from models.transformer import forward, forward_hidden, logits

__all__ = [
    "Generation",
    "Llama3RopeScaling",
    "ModelConfig",
    "abstract",
    "count",
    "declare",
    "forward",
    "forward_hidden",
    "generate",
    "init",
    "load_config",
    "load_pretrained",
    "logits",
    "save_pretrained",
    "shardings",
]
