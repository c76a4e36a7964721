// Which tensor of a GGUF file becomes which weight of the model.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/gguf_base.h"
#include "checkpoint/gguf_metadata.h"

namespace lora {

class GgufLayout {
 public:
  explicit GgufLayout(const GgufFile& file) : file_(file) {}

  bool has(const std::string& name) const { return file_.find(name) != nullptr; }

  /// `form` tells how the model's weight comes out of the tensor; its name, tensor and shape are
  /// set here. Throws Error(malformed) when the tensor is missing or of another shape.
  void take(const std::string& from, const std::string& to, std::vector<std::int64_t> shape,
            GgufWeight form = {});

  /// `from`.weight, and `from`.bias where the file has one.
  void linear(const std::string& from, const std::string& to, std::vector<std::int64_t> shape,
              GgufWeight form = {});

  /// `count` matrices that stand one behind another in `from`; `to` has '#' for their numbers.
  void experts(const std::string& from, const std::string& to, std::int64_t count,
               const std::vector<std::int64_t>& shape);

  /// A matrix of one row, which converters may write as a vector.
  void row(const std::string& from, const std::string& to, std::int64_t size);

  /// A tensor that is part of the configuration, or says again what another says.
  void pass_over(const std::string& name) { seen_.insert(name); }

  /// True when one of the layers called `kind` has a bias.
  bool has_bias(const std::string& kind) const { return biases_.contains(kind); }

  /// Throws Error(unsupported) naming a tensor that has no place.
  std::vector<GgufWeight> finish(const std::string& architecture);

 private:
  void add(GgufWeight weight, const std::string& to, std::vector<std::int64_t> shape,
           const std::vector<std::int64_t>& stored);

  const GgufFile& file_;
  std::vector<GgufWeight> weights_;
  std::set<std::string> seen_;
  std::set<std::string> biases_;
};

}  // namespace lora
