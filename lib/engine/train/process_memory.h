// Memory of this process, as the kernel counts it.
#pragma once

#include <cstdint>

namespace lora::engine {

struct ProcessMemory {
  std::int64_t resident_bytes = 0;       ///< now (VmRSS)
  std::int64_t mapped_bytes = 0;         ///< address space (VmSize)
  std::int64_t peak_resident_bytes = 0;  ///< highest so far (VmHWM)
};

/// Zeros where the system has no /proc/self/status.
ProcessMemory process_memory();

}  // namespace lora::engine
