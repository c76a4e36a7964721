// Special tokens around a single sequence.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lora/format/json.h"

namespace lora::text {

/// What a post-processor adds to one sequence; components that change offsets only add nothing.
class PostProcessor {
 public:
  /// A null document adds nothing. Throws Error(unsupported | malformed).
  PostProcessor(const Json& document, const std::string& context);

  const std::vector<std::int64_t>& before() const { return before_; }
  const std::vector<std::int64_t>& after() const { return after_; }

 private:
  void add(const Json& document, const std::string& context);
  std::vector<std::int64_t> before_;
  std::vector<std::int64_t> after_;
};

}  // namespace lora::text
