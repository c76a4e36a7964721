#include "engine/train/machine_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "engine/train/process_memory.h"

namespace lora::engine {
namespace {

namespace fs = std::filesystem;

// "max" and files that are not there have no number.
std::optional<std::int64_t> number_in(const fs::path& file) {
  std::ifstream in(file);
  std::int64_t value = 0;
  if (!(in >> value) || value < 0) return std::nullopt;
  return value;
}

// The number behind `name` in a file of lines "name number" or "name: number kB".
std::optional<std::int64_t> field_of(const fs::path& file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    std::string key;
    std::int64_t value = 0;
    if (fields >> key >> value && key == name) return value;
  }
  return std::nullopt;
}

void take_least(std::optional<std::int64_t>& least, std::optional<std::int64_t> value) {
  if (value) least = std::max<std::int64_t>(0, std::min(least.value_or(*value), *value));
}

// What one control group leaves; pages of files that nobody used lately are no use of its own.
std::optional<std::int64_t> rest_of_group(const fs::path& group, const char* limit_name,
                                          const char* usage_name, const char* cached_name) {
  const auto limit = number_in(group / limit_name);
  const auto usage = number_in(group / usage_name);
  if (!limit || !usage) return std::nullopt;
  return *limit - *usage + field_of(group / "memory.stat", cached_name).value_or(0);
}

// Limits of a group hold for everything below it.
std::optional<std::int64_t> rest_of_groups(const fs::path& root) {
  std::optional<std::int64_t> least;
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool is_v2 = controllers.empty();
    if (!is_v2 && ("," + controllers + ",").find(",memory,") == std::string::npos) continue;
    const fs::path top = root / (is_v2 ? "sys/fs/cgroup" : "sys/fs/cgroup/memory");
    fs::path group = line.substr(std::min(line.size(), second + 2));
    while (true) {
      // Inside a container the path may not be there, and the top is the container's own group.
      take_least(least,
                 is_v2 ? rest_of_group(top / group, "memory.max", "memory.current", "inactive_file")
                       : rest_of_group(top / group, "memory.limit_in_bytes",
                                       "memory.usage_in_bytes", "total_inactive_file"));
      if (group.empty()) break;
      group = group.parent_path();
    }
  }
  return least;
}

}  // namespace

std::optional<std::int64_t> available_memory(const fs::path& root) {
  std::optional<std::int64_t> least;
  if (const auto kibibytes = field_of(root / "proc/meminfo", "MemAvailable:"))
    least = *kibibytes * 1024;
  take_least(least, rest_of_groups(root));
  return least;
}

std::optional<std::int64_t> available_addresses() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return static_cast<std::int64_t>(limit.rlim_cur) - process_memory().mapped_bytes;
}

}  // namespace lora::engine
