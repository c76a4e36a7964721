// How two sets of outputs of one input differ.
#pragma once

#include <string>

#include "lora/adapter/probe.h"

namespace lora {

/// All figures are 0 (and the agreement 1) for equal outputs.
struct OutputDifference {
  bool is_bit_equal = false;  ///< every output has the same bits
  double largest = 0;         ///< max |a - b| over the compared outputs; infinite where one is NaN
  double rms = 0;             ///< root mean square of a - b over the compared outputs
  /// Kullback-Leibler divergence of softmax(b) from softmax(a) in nats, mean over the rows. Against
  /// a record the outputs that were not kept count as one.
  double kl = 0;
  double argmax_agreement = 1;  ///< share of rows whose largest output is the same one
};

/// Both must have the same rows and width, else Error(incompatible).
OutputDifference difference(const OutputMatrix& a, const OutputMatrix& b);

/// `now` against what was recorded: over the recorded outputs of each row and the log-sum of all of
/// them, which moves at most as far as the outputs do. Error(incompatible) as above.
OutputDifference difference(const RecordedOutputs& recorded, const OutputMatrix& now);

/// Largest finite |value| of what was recorded.
double magnitude_of(const RecordedOutputs& recorded);

}  // namespace lora
