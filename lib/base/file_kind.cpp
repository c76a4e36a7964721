#include "lora/base/file_kind.h"

#include <system_error>

namespace lora {

std::string irregular_kind(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  if (failed == std::errc::too_many_symbolic_link_levels) return "a link that leads back to itself";
  switch (status.type()) {
    case fs::file_type::directory:
      return "a directory";
    case fs::file_type::fifo:
      return "a named pipe";
    case fs::file_type::block:
    case fs::file_type::character:
      return "a device";
    case fs::file_type::socket:
      return "a socket";
    case fs::file_type::not_found:
      return fs::is_symlink(fs::symlink_status(path, failed)) ? "a link that leads nowhere" : "";
    default:
      return {};
  }
}

}  // namespace lora
