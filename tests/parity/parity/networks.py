"""The small networks that cases share."""

from __future__ import annotations

import pathlib

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


class Mlp(torch.nn.Module):
    """The seed example's network: 10 inputs, 20 hidden units, 2 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = torch.nn.Linear(10, 20)
        self.relu = torch.nn.ReLU()
        self.fc2 = torch.nn.Linear(20, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.relu(self.fc1(x)))


class Chain(torch.nn.Module):
    """Linear layers with a ReLU between them, under the names that a state dict gives."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.names = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
        for name in self.names:
            out_features, in_features = state[f"{name}.weight"].shape
            parent = self
            *path, leaf = name.split(".")
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, torch.nn.Module())
                parent = getattr(parent, part)
            parent.add_module(
                leaf, torch.nn.Linear(in_features, out_features, bias=f"{name}.bias" in state)
            )
        self.load_state_dict(state)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index, name in enumerate(self.names):
            x = self.get_submodule(name)(torch.relu(x) if index else x)
        return x


def corpus(root: pathlib.Path) -> str:
    """Real English text: the licence and the project's documents."""
    files = [root / "LICENSE", *sorted((root / "docs").glob("*.md"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def make_tokenizer(text: str, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE like GPT-2's, trained on `text`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def make_llama(root: pathlib.Path, folder: pathlib.Path, **changes: object) -> pathlib.Path:
    """Writes a random Llama of two layers with grouped queries, and its tokenizer."""
    settings: dict[str, object] = dict(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.08,
    )
    settings.update(changes)
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide mistakes
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith(".bias"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    make_tokenizer(corpus(root), 512).save_pretrained(folder)
    return folder
