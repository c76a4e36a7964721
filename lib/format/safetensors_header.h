// The JSON header of a safetensors file as a list of entries, before offsets are checked against
// each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lora/base/error.h"
#include "lora/format/safetensors.h"

namespace lora {

struct SafetensorsEntry {
  TensorMap::iterator tensor;  ///< dtype and shape are set, bytes are not
  std::uint64_t begin = 0;     ///< relative to the first byte after the header
  std::uint64_t end = 0;       ///< end - begin agrees with dtype and shape
};

/// Parses `text`, fills file.metadata and file.tensors (names, dtypes, shapes) and returns one
/// entry per tensor in the order of the text. `file_size` bounds how much of it is believed. Throws
/// as read_safetensors does.
std::vector<SafetensorsEntry> parse_safetensors_header(std::string_view text,
                                                       std::uint64_t file_size,
                                                       SafetensorsFile& file);

/// "cannot read PATH: REASON", and with a tensor "cannot read PATH: tensor "NAME": REASON".
Error malformed_safetensors(const SafetensorsFile& file, const std::string& reason);
Error malformed_safetensors(const SafetensorsFile& file, const std::string& tensor,
                            const std::string& reason);

}  // namespace lora
