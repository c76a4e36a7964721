#include "engine/quantised_base.h"

#include <algorithm>

#include "engine/base_change.h"
#include "lora/base/error.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora::engine {

bool is_layer_matrix(std::string_view base_name) {
  while (!base_name.empty()) {
    const std::string_view part = base_name.substr(0, base_name.find('.'));
    if (!part.empty() &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; }))
      return true;
    base_name.remove_prefix(std::min(base_name.size(), part.size() + 1));
  }
  return false;
}

void check_quantisable(const Checkpoint& base, BaseDtype dtype) {
  if (dtype == BaseDtype::native || !base.config || !base.config->mlp) return;
  throw Error(ErrorKind::unsupported, "cannot keep the base as " + std::string(to_string(dtype)) +
                                          ": it is an mlp, expected a transformer")
      .in_file(base.path.string())
      .with_hint("leave --base-dtype out");
}

void refuse_changed_base(const AdapterConfig& config, BaseDtype dtype) {
  if (dtype == BaseDtype::native || !base_change_of(config)) return;
  throw Error(ErrorKind::unsupported,
              "init_lora_weights \"" + base_changing_init(config) +
                  "\" takes its first factors out of the base, which is kept as " +
                  std::string(to_string(dtype)) + ", expected the base's own weights")
      .with_hint("leave --base-dtype out, or start with --init default");
}

}  // namespace lora::engine
