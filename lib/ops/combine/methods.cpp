#include <algorithm>
#include <array>
#include <cctype>

#include "lora/base/error.h"
#include "lora/base/random.h"
#include "ops/combine/recipe.h"

namespace lora {
namespace {

constexpr std::array kMethods{"cat",
                              "svd",
                              "linear",
                              "ties",
                              "ties_svd",
                              "dare_linear",
                              "dare_linear_svd",
                              "dare_ties",
                              "dare_ties_svd",
                              "magnitude_prune",
                              "magnitude_prune_svd",
                              "slerp",
                              "knots"};

}  // namespace

std::string_view to_string(CombineMethod method) {
  return kMethods.at(static_cast<std::size_t>(method));
}

const std::vector<std::string>& combine_method_names() {
  static const std::vector<std::string> names(kMethods.begin(), kMethods.end());
  return names;
}

CombineMethod combine_method_named(std::string_view name) {
  for (std::size_t i = 0; i < kMethods.size(); ++i)
    if (kMethods.at(i) == name) return static_cast<CombineMethod>(i);
  std::string known;
  for (const char* method : kMethods) known += (known.empty() ? "" : ", ") + std::string(method);
  throw Error(ErrorKind::usage,
              "unknown method \"" + std::string(name) + "\", expected one of " + known);
}

PeftCompat peft_compat_named(std::string_view version) {
  const auto is_release = [&](std::string_view release) {
    return version == release || (version.starts_with(release) && version[release.size()] == '.');
  };
  if (is_release("0.20")) return PeftCompat::v0_20;
  if (is_release("0.21")) return PeftCompat::v0_21;
  throw Error(ErrorKind::usage, "cannot reproduce PEFT " + std::string(version) +
                                    " (--peft-compat), expected a release of 0.20 or 0.21");
}

namespace combining {

std::int64_t Products::largest_rank() const {
  std::int64_t largest = 0;
  for (const UpdateFactor& term : terms) largest = std::max(largest, term.a.shape.at(0));
  return largest;
}

bool needs_equal_ranks(CombineMethod method) {
  switch (method) {
    case CombineMethod::linear:
    case CombineMethod::ties:
    case CombineMethod::dare_linear:
    case CombineMethod::dare_ties:
    case CombineMethod::magnitude_prune:
      return true;
    default:
      return false;
  }
}

bool is_dense(CombineMethod method) {
  switch (method) {
    case CombineMethod::ties_svd:
    case CombineMethod::dare_linear_svd:
    case CombineMethod::dare_ties_svd:
    case CombineMethod::magnitude_prune_svd:
      return true;
    default:
      return false;
  }
}

bool has_free_rank(CombineMethod method) {
  return !needs_equal_ranks(method) && method != CombineMethod::cat;
}

bool is_linear(CombineMethod method) {
  return method == CombineMethod::cat || method == CombineMethod::svd ||
         method == CombineMethod::slerp;
}

bool is_sparse(CombineMethod method) {
  return !is_linear(method) && method != CombineMethod::linear && method != CombineMethod::knots;
}

std::uint64_t mask_stream(std::size_t adapter, const std::string& matrix) {
  return stream_of("combine/" + std::to_string(adapter) + "/" + matrix);
}

}  // namespace combining
}  // namespace lora
