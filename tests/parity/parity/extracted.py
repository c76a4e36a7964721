"""Adapters that `lora extract` made from two checkpoints, loaded by the real PEFT."""

from __future__ import annotations

import copy

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from parity.harness import Context, assert_close, assert_equal, assert_small, case


def models() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    llama = dict(
        vocab_size=96, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    return {
        "llama": LlamaForCausalLM(LlamaConfig(**llama)).eval(),
        "llama_tied": LlamaForCausalLM(LlamaConfig(**llama, tie_word_embeddings=True)).eval(),
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=64, n_layer=2, n_head=4, n_positions=32)).eval(),
    }


def tuned_of(model: torch.nn.Module, is_changed=lambda name: True, scale: float = 0.02) -> torch.nn.Module:
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if is_changed(name):
                parameter += scale * torch.randn_like(parameter)
    return tuned


def logits_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def loaded(context: Context, base: str, adapter: str) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(context.folder / base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, context.folder / adapter).eval()


@case
def extracted_whole(context: Context) -> None:
    """At full rank PEFT computes the tuned model, whatever changed: norms, biases, heads, embeddings."""
    ids = torch.arange(48).view(2, 24)
    for name, model in models().items():
        tuned = tuned_of(model)
        model.save_pretrained(context.folder / name)
        tuned.save_pretrained(context.folder / f"{name}-tuned")
        report = context.run("extract", "--base", name, "--tuned", f"{name}-tuned", "-o", f"{name}-ad", "--rank", 64)
        assert_equal(f"{name} rounding_only", report["rounding_only"], True)
        found = logits_of(loaded(context, name, f"{name}-ad"), ids)
        difference = assert_close(f"{name} logits", found, logits_of(tuned, ids), 2e-5)
        context.note(f"{name} {difference:.1e}")


@case
def extracted_tokens(context: Context) -> None:
    """Few changed rows of an embedding are trainable tokens, which PEFT ties to the head where the base does."""
    ids = torch.arange(48).view(2, 24)
    for name in ("llama", "llama_tied"):
        model = models()[name]
        tuned = tuned_of(model, lambda parameter: "_proj" in parameter)
        with torch.no_grad():
            tuned.model.embed_tokens.weight[[5, 17]] += 0.1
        model.save_pretrained(context.folder / name)
        tuned.save_pretrained(context.folder / f"{name}-tuned")
        report = context.run("extract", "--base", name, "--tuned", f"{name}-tuned", "-o", f"{name}-ad", "--rank", 64)
        assert_equal(f"{name} carried", [part["kind"] for part in report["carried"]], ["token_rows"])
        found = logits_of(loaded(context, name, f"{name}-ad"), ids)
        assert_close(f"{name} logits", found, logits_of(tuned, ids), 2e-5)


@case
def extracted_error(context: Context) -> None:
    """The stated error and bound of every module against a full SVD in float64, as PEFT merges the factors."""
    for name in ("llama", "gpt2"):
        model = models()[name]
        tuned = tuned_of(model, lambda parameter: parameter.endswith(("_proj.weight", "c_attn.weight", "c_fc.weight")))
        model.save_pretrained(context.folder / name)
        tuned.save_pretrained(context.folder / f"{name}-tuned")
        report = context.run("extract", "--base", name, "--tuned", f"{name}-tuned", "-o", f"{name}-ad", "--rank", 5)
        merged = loaded(context, name, f"{name}-ad").merge_and_unload()
        before, after, ours = (m.state_dict() for m in (model, tuned, merged))
        for module in report["modules"]:
            key = module["tensor"]
            change = (after[key].double() - before[key].double())
            left = (after[key].double() - ours[key].double()).norm() / change.norm()
            best = torch.linalg.svdvals(change)[5:].norm() / change.norm()
            assert_close(f"{key} error", torch.tensor(module["error"]), left, 1e-5)
            assert_close(f"{key} least error", left, best, 1e-3 * best.item())
            if module["best_possible"] > best * (1 + 1e-6):
                raise AssertionError(f"{key}: {module['best_possible']} is called least, and {best} is reached")


@case
def extracted_merge(context: Context) -> None:
    """A merge of SmolLM2 gives its update back at its own rank."""
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(context.model, dtype=torch.float32)
    adapted = get_peft_model(
        model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    )
    updates = {
        name: module.get_delta_weight("default").double()
        for name, module in adapted.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    adapted.merge_and_unload().save_pretrained(context.folder / "merged")
    report = context.run("extract", "--base", context.model, "--tuned", "merged", "-o", "again", "--rank", 4)
    assert_equal("rounding_only", report["rounding_only"], True)
    assert_equal("modules", len(report["modules"]), len(updates))
    fresh = AutoModelForCausalLM.from_pretrained(context.model, dtype=torch.float32)
    found = PeftModel.from_pretrained(fresh, context.folder / "again")
    worst = 0.0
    for name, module in found.named_modules():
        if hasattr(module, "get_delta_weight"):
            difference = (module.get_delta_weight("default").double() - updates[name]).norm() / updates[name].norm()
            worst = max(worst, difference.item())
    assert_close("update", torch.tensor(worst), torch.tensor(0.0), 1e-6)


@case
def extracted_lower_rank_outputs(context: Context) -> None:
    """Below its rank, SmolLM2 with the extraction answers as with the best approximations of a full SVD."""
    from peft import LoraConfig, get_peft_model

    ids = torch.tensor([[504, 3575, 282, 4649, 314, 7042, 30, 198, 504, 1764, 28, 2534]])
    base = AutoModelForCausalLM.from_pretrained(context.model, dtype=torch.float32).eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    adapted = get_peft_model(
        copy.deepcopy(base), LoraConfig(r=8, lora_alpha=8, target_modules=["v_proj", "o_proj"])
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name:  # singular values well apart: the best approximation is one
                parameter.copy_(torch.nn.init.orthogonal_(parameter) * 2.0 ** -torch.arange(8)[:, None])
            elif "lora_B" in name:
                torch.nn.init.orthogonal_(parameter)
    tuned = adapted.merge_and_unload()
    tuned.save_pretrained(context.folder / "tuned")
    after = tuned.state_dict()
    whole = logits_of(tuned, ids)
    for rank in (1, 4):
        report = context.run("extract", "--base", context.model, "--tuned", "tuned", "-o", f"r{rank}", "--rank", rank)
        fresh = AutoModelForCausalLM.from_pretrained(context.model, dtype=torch.float32)
        found = logits_of(PeftModel.from_pretrained(fresh, context.folder / f"r{rank}"), ids)
        best = copy.deepcopy(base)
        parameters = dict(best.named_parameters())
        squares = errors = 0.0
        with torch.no_grad():
            for module in report["modules"]:
                name = module["tensor"]
                u, s, v = torch.linalg.svd((after[name] - before[name]).double(), full_matrices=False)
                squares += s.square().sum().item()
                errors += s[rank:].square().sum().item()
                parameters[name].copy_((before[name].double() + (u[:, :rank] * s[:rank]) @ v[:rank]).float())
        assert_small(f"rank {rank} stated error", abs(report["error"] - (errors / squares) ** 0.5), 1e-5)
        reached = logits_of(best, ids)
        distance = (reached - whole).abs().max().item()
        difference = assert_close(f"rank {rank} logits", found, reached, 1e-2 * distance)
        context.note(f"rank {rank}: {difference:.1e}, the tuned model's are {distance:.1e} away")
