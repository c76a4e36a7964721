#include "commands/output_report.h"

#include "cli/units.h"

namespace lora::cli {

std::string difference_text(const OutputDifference& difference) {
  if (difference.is_bit_equal) return "equal bit for bit";
  return "max |d| " + number_text(difference.largest) + ", rms " + number_text(difference.rms) +
         ", KL " + number_text(difference.kl) + ", best output equal in " +
         number_text(100 * difference.argmax_agreement, 3) + " %";
}

JsonObject difference_json(const OutputDifference& difference) {
  return {{"bit_equal", difference.is_bit_equal},
          {"largest", difference.largest},
          {"rms", difference.rms},
          {"kl", difference.kl},
          {"argmax_agreement", difference.argmax_agreement}};
}

}  // namespace lora::cli
