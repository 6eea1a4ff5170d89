"""What methods share: rollouts, losses, train steps, shardings."""

from distill.shadowing import require_ours

require_ours("models")
