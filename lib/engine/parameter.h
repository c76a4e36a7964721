// The parameters of a base model and what adapters put in their place.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/quantised_matrix.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

/// Rows of a table that have values of their own (trainable tokens).
struct RowPatch {
  at::Tensor indices;  ///< I64 [n]
  at::Tensor slots;  ///< I64 [rows of the table]: index into `rows`, -1 where the base's row stays
  at::Tensor rows;   ///< f32 [n, width]
  at::Tensor gradient;  ///< view of the flat gradients; undefined unless trainable
};

struct Parameter {
  std::string base_name;
  std::vector<std::int64_t> shape;
  DType stored_dtype = DType::f32;  ///< in the checkpoint
  std::string stored_name;          ///< of its tensor in the checkpoint, aliases followed
  bool is_alias = false;            ///< the checkpoint has its tensor under another name
  at::Tensor base;                  ///< frozen; matrices in the compute dtype, vectors always f32
  std::optional<QuantisedMatrix> quantised;  ///< [out, in]; in the place of `base`
  at::Tensor replacement;  ///< from an adapter, or what its start left; may be undefined
  at::Tensor gradient;     ///< view of the flat gradients; undefined unless trainable
  std::vector<std::shared_ptr<const RowPatch>> patches;  ///< from adapters, on disjoint rows

  const at::Tensor& value(bool with_adapters) const {
    return with_adapters && replacement.defined() ? replacement : base;
  }
  /// The weight when it is quantised and value() therefore undefined; otherwise null.
  const QuantisedMatrix* quantised_value(bool with_adapters) const {
    return quantised && !(with_adapters && replacement.defined()) ? &*quantised : nullptr;
  }
  bool is_trainable() const { return gradient.defined(); }
};

/// Takes a family's parameters out of a checkpoint. Matrices are views of the checkpoint's bytes
/// when their dtype is the compute dtype, and are converted once otherwise.
class ParameterSource {
 public:
  /// `prefix` ("transformer.") may be missing from the names of the checkpoint, as in files written
  /// for the bare model.
  ParameterSource(const ModelOptions& options, std::string prefix = {});

  /// Names that the adapters bring along may be missing from the base. Their base value stays
  /// undefined until fill_missing().
  void allow_missing() { is_missing_allowed_ = true; }
  /// A parameter that only an adapter has keeps that value when adapters are off.
  void fill_missing();

  /// The parameter of this name and shape. What is missing or of another shape is remembered.
  Parameter& add(const std::string& base_name, std::vector<std::int64_t> shape);
  /// The same for a matrix that only products read, which is quantised when the options ask for it
  /// and it is inside a layer. `is_transposed`: stored as [in, out].
  Parameter& add_matrix(const std::string& base_name, std::vector<std::int64_t> shape,
                        bool is_transposed = false);
  /// Throws Error(malformed) that lists all that add() could not find.
  void throw_if_incomplete() const;

  std::deque<Parameter>& parameters() { return parameters_; }
  const std::deque<Parameter>& parameters() const { return parameters_; }

 private:
  Parameter& add(const std::string& base_name, std::vector<std::int64_t> shape, bool is_quantised,
                 bool is_transposed);
  at::Tensor load(const Tensor& tensor, bool is_matrix);
  const Tensor* find(const std::string& base_name, Parameter& parameter) const;

  const Checkpoint& checkpoint_;
  Compute compute_;
  BaseDtype base_dtype_;
  std::string prefix_;
  std::set<std::string> from_adapters_;
  bool is_missing_allowed_ = false;
  std::deque<Parameter> parameters_;  ///< a deque: references stay valid
  std::map<const std::byte*, at::Tensor> loaded_;
  std::vector<std::string> offenders_;
};

/// "first; second; third and 4 more", for messages that list offenders.
std::string join_offenders(const std::vector<std::string>& offenders);

}  // namespace lora::engine
