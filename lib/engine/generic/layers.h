// Layers with every kind of LoRA, written with operators that LibTorch differentiates.
//
// Formulas are PEFT's (tuners/lora/layer.py, dora.py, tuners/trainable_tokens/layer.py). All values
// are f32; frozen matrices stored in bf16 are widened where they are used.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "engine/generic/layer_store.h"

namespace lora::engine {

/// y [..., out] of a linear or conv1d layer for x [..., in].
at::Tensor apply_dense(const LoraSite& site, const at::Tensor& x, const Pass& pass);

/// Rows [..., width] of a table for ids I64 [...].
at::Tensor apply_table(const Table& table, const at::Tensor& ids, const Pass& pass);

at::Tensor apply_layer_norm(const Norm& norm, const at::Tensor& x, const Pass& pass);
at::Tensor apply_rms_norm(const Norm& norm, const at::Tensor& x, const Pass& pass);

/// A function of transformers' activation table that activation_class() knows; throws
/// Error(internal) for another name.
at::Tensor activate(const std::string& name, const at::Tensor& x);

/// Dropout of the base model (not of LoRA): x itself outside training or with rate 0.
at::Tensor drop(const at::Tensor& x, double rate, std::uint64_t stream, const Pass& pass);

/// DoRA's |W + scaling * B A| of each output, [out], without a gradient. Uses the branch's
/// weight_squares when they are there.
at::Tensor dora_norm(const LoraSite& site, const LoraBranch& branch);

/// |W|^2 of each output in f64, which stays while the weight does.
at::Tensor dora_squares(const LoraSite& site);

}  // namespace lora::engine
