#include "ops/output_place.h"

#include <system_error>

#include "lora/base/error.h"

namespace lora {

namespace stdfs = std::filesystem;

void require_apart(const stdfs::path& output, const stdfs::path& input, const std::string& doing,
                   const std::string& what) {
  std::error_code ignored;
  const stdfs::path place = stdfs::weakly_canonical(output, ignored);
  for (stdfs::path at = stdfs::weakly_canonical(input, ignored); !at.empty();
       at = at.parent_path()) {
    if (at == place)
      throw Error(ErrorKind::usage, "cannot " + doing + " " + output.string() +
                                        ": it is or holds " + what + " (" + input.string() +
                                        "), expected another folder");
    if (at == at.parent_path()) return;
  }
}

void require_space(const stdfs::path& output, std::uint64_t bytes) {
  stdfs::path existing = stdfs::absolute(output);
  std::error_code failed;
  while (!stdfs::exists(existing, failed) && existing.has_relative_path())
    existing = existing.parent_path();
  const auto space = stdfs::space(existing, failed);
  if (!failed && space.available < bytes)
    throw Error(ErrorKind::output, "cannot write " + output.string() + ": it needs " +
                                       std::to_string(bytes) + " bytes, found " +
                                       std::to_string(space.available) + " free")
        .in_file(output.string())
        .with_hint("free some space or choose another output folder");
}

}  // namespace lora
