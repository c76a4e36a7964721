"""Comparison of `lora` with PEFT, transformers, safetensors and tokenizers."""
