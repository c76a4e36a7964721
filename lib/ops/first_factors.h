// The factors that PiSSA and OLoRA took out of the base when training began, from the base's
// weights alone: formulas of PEFT's pissa_init and olora_init, in f64.
//
// Signs and the split between the two factors do not matter: only their product is taken out.
#pragma once

#include <string>

#include "lora/adapter/adapter.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// Throws Error(unsupported) unless the initialisation depends on the weights alone ("pissa",
/// "olora"): random columns, data and quantisation are not in any file.
void require_known_init(const std::string& init, const std::string& adapter);

struct FactorPair {
  Tensor a;  ///< F32 [rank, in]
  Tensor b;  ///< F32 [out, rank]
};

/// A0 and B0 of a linear site for its weight as stored, [out, in] or, for a Conv1D, [in, out].
/// Throws Error(incompatible) for a rank above the smaller side or a scaling that is not above 0,
/// Error(unsupported) for OLoRA on a Conv1D, whose transpose PEFT takes.
FactorPair first_factors(const std::string& init, const LoraModule& module, const Tensor& weight,
                         bool is_conv1d);

}  // namespace lora
