#include "engine/train/process_memory.h"

#include <fstream>
#include <sstream>
#include <string>

namespace lora::engine {

ProcessMemory process_memory() {
  ProcessMemory memory;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream fields(line);
    std::string name;
    std::int64_t kibibytes = 0;
    if (!(fields >> name >> kibibytes)) continue;
    if (name == "VmRSS:") memory.resident_bytes = kibibytes * 1024;
    if (name == "VmSize:") memory.mapped_bytes = kibibytes * 1024;
    if (name == "VmHWM:") memory.peak_resident_bytes = kibibytes * 1024;
  }
  return memory;
}

}  // namespace lora::engine
