"""What a plan compiles."""

PROGRAMS = ("train", "rollout", "prefill")
