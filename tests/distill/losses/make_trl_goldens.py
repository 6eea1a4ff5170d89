"""Writes `goldens/trl_gkd.npz` with TRL: `python tests/distill/losses/make_trl_goldens.py`.

Needs trl 1.16.0 and torch; the tests need neither. Stored are TRL's losses and their gradients in
the student's logits, in float64. In this version of TRL beta means what it does in GKD's paper:
the mixture is beta teacher + (1 - beta) student.
"""

from pathlib import Path

import numpy as np
import torch
from trl.experimental.gkd.gkd_trainer import GKDTrainer

PATH = Path(__file__).parent / "goldens" / "trl_gkd.npz"
BETAS = np.array([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
IGNORED = -100


def main() -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(0, 2, (2, 2, 4, 6))
    mask = np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool)
    labels = torch.tensor(np.where(mask, 0, IGNORED))
    losses, grads = [], []
    for beta in BETAS.tolist():
        logits = torch.tensor(student, requires_grad=True)
        loss = GKDTrainer.generalized_jsd_loss(
            logits, torch.tensor(teacher), labels, beta, num_items_in_batch=int(mask.sum())
        )
        loss.backward()
        losses.append(loss.item())
        grads.append(logits.grad.numpy())
    np.savez_compressed(
        PATH,
        beta=BETAS,
        teacher_BxTxV=teacher,
        student_BxTxV=student,
        mask_BxT=mask,
        loss=np.array(losses),
        grad_BxTxV=np.array(grads),
    )


if __name__ == "__main__":
    main()
