// What training adds to the cross entropy of a position.
#pragma once

namespace lora::engine {

struct LossSettings {
  double label_smoothing = 0;  ///< share of the target that all classes get alike
  double z_loss = 0;           ///< weight of logsumexp(logits)^2
};

}  // namespace lora::engine
