// Fused passes over activations: what ATen would do in several passes, or not without copies.
//
// All matrices are row major; `rows` run in parallel with at::parallel_for. Every result depends on
// its own row only, so it is the same for any number of threads. Activations are stored as `T`,
// float or Bf16 (rounded to nearest even); all arithmetic is f32.
#pragma once

#include <cstdint>

#include "engine/loss_settings.h"

namespace lora::engine {

/// bfloat16, laid out as c10::BFloat16.
struct Bf16 {
  std::uint16_t bits;
};

/// What a norm multiplies by: values[i] + offset. Gemma's norms have offset 1.
struct NormWeight {
  const float* values = nullptr;  ///< [width]
  std::int64_t width = 0;
  float offset = 0;
  float eps = 0;
};

/// out = x / rms(x) * weight, as Llama's RMSNorm; x, out [rows, width].
template <typename In, typename Out>
void rms_norm(const In* x, const NormWeight& weight, std::int64_t rows, Out* out);

/// dx = (or += with `accumulate`) gradient of rms_norm with respect to x, for the gradient g of its
/// output. dx may be g when it is not accumulated.
template <typename G, typename In, typename Out>
void rms_norm_backward(const G* g, const In* x, const NormWeight& weight, std::int64_t rows,
                       bool accumulate, Out* dx);

/// out = y + scale * x; out may be y.
template <typename T>
void add_scaled(const float* y, const T* x, std::int64_t count, float scale, float* out);

/// out = x, rounded or widened.
template <typename In, typename Out>
void convert_all(const In* x, std::int64_t count, float scale, Out* out);

/// out [ceil(rows / 2), columns, 2]: neighbouring rows of x [rows, columns] rounded and
/// interleaved, the last of an odd number with zeros. Runs on the calling thread.
void pack_pairs(const float* x, std::int64_t rows, std::int64_t columns, Bf16* out);

/// What a gated feed-forward block does to its gate.
enum class Gate { silu, gelu_tanh };

/// `gate` and `up` [rows, width] start at the given pointers and their rows are `stride` apart;
/// other matrices of the same call are dense.
struct GateShape {
  std::int64_t rows = 0, width = 0, stride = 0;
};
/// out = function of the kind (gate) * up.
template <typename T>
void gated(Gate kind, const T* gate, const T* up, const GateShape& shape, T* out);
/// Gradients of gated in place: gate and up become their own gradients for the gradient g of out.
template <typename T>
void gated_backward(Gate kind, const T* g, const GateShape& shape, T* gate, T* up);

/// Heads of an attention projection. `rows` layout: [batch, time, kv_heads * group, dim], rows
/// `stride` elements apart (0: dense); `heads` layout: [batch, kv_heads, time, group, dim], so that
/// the queries that share a key head are one matrix. Keys and values have group 1.
struct HeadShape {
  std::int64_t batch = 0, time = 0, kv_heads = 0, group = 1, dim = 0;
  std::int64_t stride = 0;  ///< of the rows layout
};
/// The rotary embedding of the first 2 * half elements of a head (half-split); the others stay.
struct Rotation {
  const float* cos = nullptr;  ///< [positions, half]
  const float* sin = nullptr;
  std::int64_t half = 0;  ///< 0: nothing is rotated
  /// [batch, time]; null: the index in the row.
  const std::int32_t* positions = nullptr;
};
/// rows -> heads, rotated.
template <typename T>
void split_heads(const T* rows, const HeadShape& shape, const Rotation& rotation, T* heads);
/// heads -> rows, rotated back (the transpose of the rotation).
template <typename T>
void merge_heads(const T* heads, const HeadShape& shape, const Rotation& rotation, T* rows);

/// What attention does to raw scores: s = scale * raw, then cap * tanh(s / cap) unless cap is 0.
struct ScoreRule {
  float scale = 1;
  float cap = 0;
};
/// One block of attention scores [queries * group, keys]: row (query, g) belongs to the position
/// first_query + query of its sequence, and column 0 to the key first_key. It sees the keys up to
/// its own position, from first_visible[position] on (null: from 0) and less those whose byte in
/// key_mask[key] is zero (null: all present).
struct ScoreBlock {
  std::int64_t group = 1, queries = 0, keys = 0, first_query = 0, first_key = 0;
  const std::uint8_t* key_mask = nullptr;
  const std::int32_t* first_visible = nullptr;
};
/// scores = softmax over the visible keys, 0 elsewhere; in place. Rows that see nothing become
/// zero. With a cap, slopes [like scores] receives the derivative of the capped score by s.
void causal_softmax(const ScoreBlock& block, const ScoreRule& rule, float* scores, float* slopes);
/// Gradient in place: dp, the gradient of the probabilities p, becomes that of the raw scores.
/// `slopes` from causal_softmax, null without a cap.
void causal_softmax_backward(const ScoreBlock& block, const ScoreRule& rule, const float* p,
                             const float* slopes, float* dp);

/// logits = cap * tanh(logits / cap), in place.
void soft_cap(float cap, std::int64_t count, float* logits);
/// g becomes the gradient in front of soft_cap, for the capped logits.
void soft_cap_backward(float cap, const float* capped, std::int64_t count, float* g);

/// Cross entropy of logits [rows, classes] with labels [rows]; losses [rows] in f64. With
/// `gradient_scale` != 0 the logits become gradient_scale * d loss / d logits. `settings` add to
/// the loss.
void cross_entropy(float* logits, const std::int64_t* labels, std::int64_t rows,
                   std::int64_t classes, float gradient_scale, double* losses,
                   const LossSettings& settings = {});

/// out = x * mask / (1 - p); the mask is a function of `key` and the element's index only.
void apply_dropout(const float* x, std::int64_t count, double p, std::uint64_t key, float* out);

/// The products of LoRA with bf16 activations x, y [rows, width]: the matrices of `rank` rows or
/// columns are too thin for a general product, and stay f32. `p` [rows, rank], `factor`
/// [rank, width].
struct LowRank {
  std::int64_t rows = 0, width = 0, rank = 0;
};
/// p = x factor^T
void low_rank_product(const LowRank& shape, const Bf16* x, const float* factor, float* p);
/// y += p factor
void low_rank_add(const LowRank& shape, const float* p, const float* factor, Bf16* y);
/// gradient [rank, width] += p^T x
void low_rank_gradient(const LowRank& shape, const float* p, const Bf16* x, float* gradient);

/// out[row, n] = sum_k weight[n, k] x[row, k] for few rows: reads the weight once.
template <typename Weight>
void few_row_product(const float* x, std::int64_t rows, const Weight* weight, std::int64_t outputs,
                     std::int64_t inputs, float* out);

/// Keys and values [kv_heads, capacity, dim] of the positions so far; a new position sees those
/// from `begin` to `end` - 1.
struct CachedKeys {
  const float* keys = nullptr;
  const float* values = nullptr;
  std::int64_t capacity = 0, begin = 0, end = 0;
};
/// Attention of one new position with a cache: q and out [kv_heads * group, dim].
void cached_attention(const float* q, const CachedKeys& cache, const HeadShape& shape,
                      const ScoreRule& rule, float* out);

}  // namespace lora::engine
