"""Benchmarks of `lora` against PEFT, safetensors and openssl."""
