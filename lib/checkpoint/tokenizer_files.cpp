#include "lora/checkpoint/tokenizer_files.h"

#include <system_error>

#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/format/json.h"

namespace lora {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kLargestFile = std::uintmax_t{256} << 20;

std::shared_ptr<const MappedFile> open_small(const fs::path& path) {
  std::error_code failed;
  if (!fs::is_regular_file(path, failed) || fs::file_size(path, failed) > kLargestFile || failed)
    return nullptr;
  try {
    return MappedFile::open(path);
  } catch (const Error&) {
    return nullptr;
  }
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

// A string, or a list of {"name", "template"}.
std::optional<std::string> template_of(const Json& value) {
  if (value.is_string()) return *value.as_string();
  if (!value.is_array()) return std::nullopt;
  std::string all;
  for (const Json& item : *value.as_array()) {
    const Json* name = item.find("name");
    const Json* text = item.find("template");
    if (name == nullptr || text == nullptr || !name->is_string() || !text->is_string())
      return std::nullopt;
    all += *name->as_string() + ": " + *text->as_string() + "\n";
  }
  return all;
}

}  // namespace

std::optional<Digest> TokenizerFiles::chat_template_digest() const {
  if (!chat_template) return std::nullopt;
  return sha256(std::as_bytes(std::span(*chat_template)));
}

TokenizerFiles read_tokenizer_files(const fs::path& directory) {
  TokenizerFiles files;
  if (directory.empty()) return files;
  if (const auto file = open_small(directory / kTokenizerName))
    files.tokenizer = sha256(file->bytes());
  if (const auto file = open_small(directory / kChatTemplateName)) {
    files.chat_template = text_of(*file);
    return files;
  }
  const auto config = open_small(directory / kTokenizerConfigName);
  if (!config) return files;
  try {
    const Json document = parse_json(text_of(*config), kTokenizerConfigName);
    if (const Json* entry = document.find("chat_template"))
      files.chat_template = template_of(*entry);
  } catch (const Error&) {
    return files;
  }
  return files;
}

}  // namespace lora
