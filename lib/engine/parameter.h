// The parameters of a base model and what adapters put in their place.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"

namespace lora::engine {

struct Parameter {
  std::string base_name;
  std::vector<std::int64_t> shape;
  DType stored_dtype = DType::f32;  ///< in the checkpoint
  bool is_alias = false;            ///< shares the base tensor of another parameter
  at::Tensor base;                  ///< frozen; matrices in the compute dtype, vectors always f32
  at::Tensor replacement;           ///< f32, from an adapter; undefined without one
  at::Tensor gradient;              ///< view of the flat gradients; undefined unless trainable

  const at::Tensor& value(bool with_adapters) const {
    return with_adapters && replacement.defined() ? replacement : base;
  }
  bool is_trainable() const { return gradient.defined(); }
};

/// Takes a family's parameters out of a checkpoint. Matrices are views of the checkpoint's bytes
/// when their dtype is the compute dtype, and are converted once otherwise.
class ParameterSource {
 public:
  ParameterSource(const Checkpoint& checkpoint, Compute compute);

  /// The parameter of this name and shape. What is missing or of another shape is remembered.
  Parameter& add(const std::string& base_name, std::vector<std::int64_t> shape);
  /// Throws Error(malformed) that lists all that add() could not find.
  void throw_if_incomplete() const;

  std::deque<Parameter>& parameters() { return parameters_; }
  const std::deque<Parameter>& parameters() const { return parameters_; }

 private:
  at::Tensor load(const Tensor& tensor, bool is_matrix);

  const Checkpoint& checkpoint_;
  Compute compute_;
  std::deque<Parameter> parameters_;  ///< a deque: references stay valid
  std::map<const std::byte*, at::Tensor> loaded_;
  std::vector<std::string> offenders_;
};

/// "first; second; third and 4 more", for messages that list offenders.
std::string join_offenders(const std::vector<std::string>& offenders);

}  // namespace lora::engine
