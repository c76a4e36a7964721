// Fused passes over activations: what ATen would do in several passes, or not without copies.
//
// All matrices are row major and dense f32; `rows` run in parallel with at::parallel_for. Every
// result depends on its own row only, so it is the same for any number of threads.
#pragma once

#include <cstdint>

namespace lora::engine {

/// out = x / rms(x) * weight, as Llama's RMSNorm; x, out [rows, width].
void rms_norm(const float* x, const float* weight, double eps, std::int64_t rows,
              std::int64_t width, float* out);

/// dx += gradient of rms_norm with respect to x, for the gradient g of its output.
void rms_norm_backward(const float* g, const float* x, const float* weight, double eps,
                       std::int64_t rows, std::int64_t width, float* dx);

/// out = silu(gate) * up over `count` elements.
void swiglu(const float* gate, const float* up, std::int64_t count, float* out);

/// Gradients of swiglu in place: gate and up become their own gradients for the gradient g of out.
void swiglu_backward(const float* g, std::int64_t count, float* gate, float* up);

/// Heads of an attention projection. `rows` layout: [batch, time, kv_heads * group, dim]; `heads`
/// layout: [batch, kv_heads, time, group, dim], so that the queries that share a key head are one
/// matrix. Keys and values have group 1.
struct HeadShape {
  std::int64_t batch = 0, time = 0, kv_heads = 0, group = 1, dim = 0;
};
/// rows -> heads with the rotary embedding applied (half-split); cos and sin [time, dim / 2], null
/// for none.
void split_heads(const float* rows, const HeadShape& shape, const float* cos, const float* sin,
                 float* heads);
/// heads -> rows, rotated back (the transpose of the rotation) when cos and sin are given.
void merge_heads(const float* heads, const HeadShape& shape, const float* cos, const float* sin,
                 float* rows);

/// One block of attention scores [batch * kv_heads, queries * group, keys]: row (query, g) belongs
/// to position first_query + query and sees keys 0 .. its position, less those whose byte in
/// key_mask [batch, mask_stride] is zero (null: all present).
struct ScoreBlock {
  std::int64_t batch = 0, kv_heads = 0, group = 1, queries = 0, keys = 0, first_query = 0;
  const std::uint8_t* key_mask = nullptr;
  std::int64_t mask_stride = 0;
};
/// scores = softmax(scale * scores) over the visible keys, 0 elsewhere; in place. Rows that see
/// nothing become zero.
void causal_softmax(const ScoreBlock& block, float scale, float* scores);
/// Gradient in place: dp, the gradient of the probabilities p, becomes that of the raw scores.
void causal_softmax_backward(const ScoreBlock& block, float scale, const float* p, float* dp);

/// Cross entropy of logits [rows, classes] with labels [rows]; losses [rows] in f64. With
/// `gradient_scale` != 0 the logits become gradient_scale * d loss / d logits.
void cross_entropy(float* logits, const std::int64_t* labels, std::int64_t rows,
                   std::int64_t classes, float gradient_scale, double* losses);

/// out = x * mask / (1 - p); the mask is a function of `key` and the element's index only.
void apply_dropout(const float* x, std::int64_t count, double p, std::uint64_t key, float* out);

/// out[row, n] = sum_k weight[n, k] x[row, k] for few rows: reads the weight once, f32 or bf16.
void few_row_product(const float* x, std::int64_t rows, const float* weight, std::int64_t outputs,
                     std::int64_t inputs, float* out);
void few_row_product(const float* x, std::int64_t rows, const std::uint16_t* weight,
                     std::int64_t outputs, std::int64_t inputs, float* out);

/// Attention of one new position with a cache: q [kv_heads * group, dim]; keys and values
/// [kv_heads, capacity, dim] of which `length` positions count; out like q.
void cached_attention(const float* q, const float* keys, const float* values,
                      const HeadShape& shape, std::int64_t capacity, std::int64_t length,
                      float scale, float* out);

}  // namespace lora::engine
