#include "ops/cast_tensors.h"

#include <cmath>
#include <string>
#include <vector>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

struct Outcome {
  Tensor tensor;
  std::string fault;
  std::uint64_t vanished = 0;
};

Outcome cast_one(const std::string& name, const Tensor& tensor, DType dtype) {
  Outcome outcome{tensor.cast(dtype), {}, 0};
  const std::vector<double> before = tensor.to_f64();
  const std::vector<double> after = outcome.tensor.to_f64();
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] != 0 && after[i] == 0) ++outcome.vanished;
    if (!std::isfinite(before[i]) || std::isfinite(after[i]) || !outcome.fault.empty()) continue;
    outcome.fault =
        name + " holds " + rules::figure(before[i]) + " at element " + std::to_string(i);
  }
  return outcome;
}

}  // namespace

CastTensors cast_tensors(const TensorMap& tensors, DType dtype, int threads) {
  std::vector<const TensorMap::value_type*> entries;
  for (const auto& entry : tensors)
    if (is_float(entry.second.dtype) && entry.second.dtype != dtype) entries.push_back(&entry);
  std::vector<Outcome> outcomes(entries.size());
  parallel_for(entries.size(), threads, [&](std::size_t i) {
    outcomes[i] = cast_one(entries[i]->first, entries[i]->second, dtype);
  });
  CastTensors result{tensors, entries.size(), 0};
  std::vector<std::string> faults;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!outcomes[i].fault.empty()) faults.push_back(outcomes[i].fault);
    result.vanished += outcomes[i].vanished;
    result.tensors[entries[i]->first] = std::move(outcomes[i].tensor);
  }
  if (!faults.empty())
    throw Error(ErrorKind::incompatible,
                "cannot write these tensors as " + std::string(to_string(dtype)) +
                    ", whose range is too small: " + rules::join_some(faults))
        .with_hint("BF16 has the range of F32");
  return result;
}

}  // namespace lora
