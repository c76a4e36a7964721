"""Damaged files against the real lora."""
