"""A distillation step as one writes it in PyTorch: logits of the completion, eager or compiled."""

from __future__ import annotations

from typing import Any

import bench_protocol


def measure(session: bench_protocol.Session) -> None:
    """Student forward and backward, teacher forward, whole reverse KL, clipping, AdamW."""
    import torch
    import transformers

    session.packages = ("torch", "transformers")
    request = session.request
    shape, optim = request["train"], request["optimizer"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, request["dtype"])

    def load(path: str, kind: torch.dtype):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=kind)
        return model.to(device)

    student, teacher = load(request["student"], torch.float32), load(request["teacher"], dtype)
    student.train()
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=optim["learning_rate"],
        betas=(optim["b1"], optim["b2"]),
        eps=optim["eps"],
        weight_decay=optim["weight_decay"],
    )
    prompt, new = shape["prompt"], shape["new"]
    tokens = torch.tensor(session.tokens(shape["batch"], prompt + new), device=device)

    def completion_logits(model):
        # The position before each completion token; the last token predicts nothing here.
        hidden = model.model(tokens[:, :-1], use_cache=False).last_hidden_state[:, prompt - 1 :]
        return model.lm_head(hidden).float()

    def objective() -> torch.Tensor:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            with torch.no_grad():
                log_q = torch.log_softmax(completion_logits(teacher), dim=-1)
            log_p = torch.log_softmax(completion_logits(student), dim=-1)
            kl = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True)
        return kl.sum(-1).mean()

    if request["variant"] == "compiled":
        objective = torch.compile(objective)

    def repeat() -> None:
        loss = objective()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), optim["clip_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss))

    losses: list[float] = []
    session.measure(repeat)
    session.facts |= {"tokens": shape["batch"] * (prompt + new), "first_loss": losses[0]}


if __name__ == "__main__":
    bench_protocol.serve(measure)
