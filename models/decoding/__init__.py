"""Cached decoding: prefill, sampling, slots."""
