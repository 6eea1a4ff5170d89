"""transformers' `generate` on PyTorch, with a static or a dynamic cache."""

from __future__ import annotations

from typing import Any

import bench_protocol


def measure(session: bench_protocol.Session) -> None:
    """Samples `decode.new` tokens behind `decode.batch` prompts."""
    import torch
    import transformers

    session.packages = ("torch", "transformers")
    request = session.request
    shape = request["decode"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        request["student"], dtype=getattr(torch, request["dtype"])
    )
    model = model.to(device).eval()
    prompts = torch.tensor(session.tokens(shape["batch"], shape["prompt"]), device=device)
    mask = torch.ones_like(prompts)
    settings = transformers.GenerationConfig(
        max_new_tokens=shape["new"],
        min_new_tokens=None,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=True,
        cache_implementation="static" if request["variant"] == "static" else None,
    )

    def repeat() -> None:
        with torch.inference_mode():
            out = model.generate(prompts, attention_mask=mask, generation_config=settings)
        assert out.shape == (shape["batch"], shape["prompt"] + shape["new"]), out.shape

    session.measure(repeat)
    session.facts["tokens"] = shape["batch"] * shape["new"]


if __name__ == "__main__":
    bench_protocol.serve(measure)
