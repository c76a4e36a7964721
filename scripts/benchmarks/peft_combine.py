"""peft_combine.py MODEL FOLDER COUNT [--make]: adapters a0, a1, ... of rank 16 on every linear layer in FOLDER,
or the seconds of PEFT's add_weighted_adapter(svd) of the first COUNT of them, loading left out."""

import sys
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

source, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
if "--make" in sys.argv:
    for number in range(count):
        torch.manual_seed(number)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False
        )
        model = get_peft_model(base, config)
        model.save_pretrained(f"{folder}/a{number}")
        base = model.unload()
else:
    names = [f"a{number}" for number in range(count)]
    model = PeftModel.from_pretrained(base, f"{folder}/a0", adapter_name="a0")
    for name in names[1:]:
        model.load_adapter(f"{folder}/{name}", adapter_name=name)
    started = time.perf_counter()
    model.add_weighted_adapter(names, [1.0 / count] * count, "all", combination_type="svd")
    print(time.perf_counter() - started)
