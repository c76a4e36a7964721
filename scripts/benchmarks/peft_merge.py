"""peft_merge.py MODEL FOLDER DTYPE [LAYERS]: base-X, adapter-X and merged-X in FOLDER, by PEFT.

X is DTYPE, or DTYPE-LAYERS where the model is cut or repeated to that many layers; the adapter then
targets the first 15 layers only, so that only the base grows.
"""

import copy
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

source, folder, dtype = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
layers = int(sys.argv[4]) if len(sys.argv) > 4 else None
name = dtype if layers is None else f"{dtype}-{layers}"
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(
    source, dtype={"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
)
settings = {}
if layers is not None:
    blocks = model.model.layers
    chosen = [copy.deepcopy(blocks[i % len(blocks)]) for i in range(layers)]
    model.model.layers = torch.nn.ModuleList(chosen)
    model.config.num_hidden_layers = layers
    if hasattr(model.config, "layer_types"):
        model.config.layer_types = ["full_attention"] * layers
    settings["layers_to_transform"] = list(range(15))
model.save_pretrained(folder / f"base-{name}")
config = LoraConfig(
    r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    task_type="CAUSAL_LM", init_lora_weights=False, **settings,
)  # fmt: skip
model = get_peft_model(model, config)
model.save_pretrained(folder / f"adapter-{name}")
model.merge_and_unload().save_pretrained(folder / f"merged-{name}")
