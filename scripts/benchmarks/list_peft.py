"""Lists an adapter's configuration and tensors with PEFT."""

import sys

from peft import PeftConfig
from peft.utils import load_peft_weights

print(PeftConfig.from_pretrained(sys.argv[1]))
for name, tensor in load_peft_weights(sys.argv[1], device="cpu").items():
    print(name, tuple(tensor.shape))
