"""Language models as pure functions on pytrees. Names end in shapes: see docs/letters.md."""

from models.config import LoraConfig, ModelConfig
from models.decoding.generate import Generation, generate
from models.huggingface.checkpoint import load_config, load_pretrained
from models.huggingface.export import save_pretrained
from models.lora import add_adapters, merge, trainable
from models.parameters import abstract, count, declare, init, shardings
from models.rope import LinearRopeScaling, Llama3RopeScaling, YarnRopeScaling
from models.transformer import forward, forward_hidden, logits
from models.version import __version__

__all__ = [
    "Generation",
    "LinearRopeScaling",
    "Llama3RopeScaling",
    "LoraConfig",
    "ModelConfig",
    "YarnRopeScaling",
    "__version__",
    "abstract",
    "add_adapters",
    "count",
    "declare",
    "forward",
    "forward_hidden",
    "generate",
    "init",
    "load_config",
    "load_pretrained",
    "logits",
    "merge",
    "save_pretrained",
    "shardings",
    "trainable",
]
