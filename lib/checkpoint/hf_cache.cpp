#include <algorithm>
#include <string>
#include <system_error>

#include "checkpoint/weight_files.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

bool is_id_part(std::string_view part) {
  if (part.empty() || part.front() == '.' || part.find("..") != std::string_view::npos)
    return false;
  return std::all_of(part.begin(), part.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

// "org/name" -> "models--org--name"; empty when this cannot be an id.
std::string folder_of(const std::string& id) {
  const auto slash = id.find('/');
  const std::string_view text(id);
  if (slash == std::string::npos) return is_id_part(text) ? "models--" + id : "";
  const std::string_view owner = text.substr(0, slash);
  const std::string_view name = text.substr(slash + 1);
  if (!is_id_part(owner) || !is_id_part(name)) return "";
  return "models--" + std::string(owner) + "--" + std::string(name);
}

std::string read_revision(const stdfs::path& ref) {
  const auto file = MappedFile::open(ref);
  const auto bytes = file->bytes();
  std::string text(reinterpret_cast<const char*>(bytes.data()),
                   std::min<std::size_t>(bytes.size(), 256));
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' '))
    text.pop_back();
  return text;
}

stdfs::path snapshot_in(const stdfs::path& folder) {
  std::error_code ignored;
  const stdfs::path snapshots = folder / "snapshots";
  const stdfs::path ref = folder / "refs" / "main";
  if (stdfs::exists(ref, ignored)) {
    const std::string revision = read_revision(ref);
    if (is_id_part(revision) && stdfs::is_directory(snapshots / revision, ignored))
      return snapshots / revision;
    throw Error(ErrorKind::malformed, "cannot open cached model " + folder.string() +
                                          ": refs/main names revision \"" + revision +
                                          "\", which is not among its snapshots")
        .in_file(ref.string())
        .with_hint("download the model again, or give the snapshot folder itself");
  }
  std::vector<stdfs::path> found;
  for (const auto& entry : stdfs::directory_iterator(snapshots, ignored))
    if (entry.is_directory(ignored)) found.push_back(entry.path());
  if (found.size() == 1) return found.front();
  throw Error(ErrorKind::malformed, "cannot open cached model " + folder.string() + ": found " +
                                        std::to_string(found.size()) +
                                        " snapshots and no refs/main, expected one")
      .in_file(folder.string())
      .with_hint("give the snapshot folder itself");
}

}  // namespace

std::optional<stdfs::path> find_cached_model(const std::string& id,
                                             const std::vector<stdfs::path>& caches) {
  const std::string folder = folder_of(id);
  if (folder.empty()) return std::nullopt;
  std::error_code ignored;
  for (const stdfs::path& cache : caches)
    if (stdfs::is_directory(cache / folder, ignored)) return snapshot_in(cache / folder);
  return std::nullopt;
}

}  // namespace lora
