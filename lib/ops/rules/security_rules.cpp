#include <algorithm>
#include <system_error>

#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "ops/rules/folder_rules.h"

namespace lora::rules {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxEntries = 10'000;
constexpr int kMaxDepth = 2;
constexpr std::uint64_t kMaxText = std::uint64_t{4} << 20;

Folder::Entry entry_of(const fs::directory_entry& entry, const fs::path& folder) {
  std::error_code failed;
  Folder::Entry found{entry.path(), entry.path().lexically_relative(folder), 0,
                      entry.is_regular_file(failed), false};
  if (found.is_file) found.bytes = entry.file_size(failed);
  if (failed) found.bytes = 0;
  found.is_link = entry.is_symlink(failed);
  return found;
}

using Check = void (*)(const Folder&, Report&);
struct FolderRule {
  std::string_view id;
  Check check;
};
constexpr FolderRule kFolderRules[] = {{"LV801", check_pickles},
                                       {"LV802", check_links},
                                       {"LV803", check_remote_code},
                                       {"LV804", check_chat_templates},
                                       {"LV805", check_sizes}};

}  // namespace

Folder list_folder(const fs::path& adapter) {
  Folder folder;
  std::error_code failed;
  if (fs::is_regular_file(adapter, failed)) {
    folder.path = adapter.parent_path();
    folder.is_single_file = true;
    folder.entries.push_back(entry_of(fs::directory_entry(adapter, failed), folder.path));
    return folder;
  }
  folder.path = adapter;
  fs::recursive_directory_iterator walk(adapter, fs::directory_options::skip_permission_denied,
                                        failed);
  for (; !failed && walk != fs::recursive_directory_iterator(); walk.increment(failed)) {
    if (folder.entries.size() == kMaxEntries) {
      folder.is_cut = true;
      break;
    }
    if (walk.depth() >= kMaxDepth) walk.disable_recursion_pending();
    folder.entries.push_back(entry_of(*walk, adapter));
  }
  std::sort(folder.entries.begin(), folder.entries.end(),
            [](const auto& a, const auto& b) { return a.path < b.path; });
  return folder;
}

std::optional<std::string> read_text(const Folder::Entry& entry) {
  if (!entry.is_file || entry.bytes > kMaxText) return std::nullopt;
  try {
    const auto file = MappedFile::open(entry.path);
    return std::string(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string check_folder(const fs::path& adapter, Report& report) {
  const Folder folder = list_folder(adapter);
  for (const auto& [id, check] : kFolderRules) {
    report.begin(rule_by_id(id));
    check(folder, report);
  }
  const auto files =
      std::count_if(folder.entries.begin(), folder.entries.end(),
                    [](const Folder::Entry& entry) { return entry.is_file || entry.is_link; });
  return (folder.is_cut ? "the first " : "") + std::to_string(files) +
         (files == 1 ? " file" : " files") + ": pickles, links, code, chat templates, sizes";
}

const std::vector<Rule>& security_rules() {
  static const std::vector<Rule> rules{
      {{"LV801", "pickle-globals", Severity::error,
        "every name that the pickles of the folder refer to (listed, never run)",
        "Unpickling calls these names: an error where the weights need more than tensors, or where "
        "any pickle names something that runs code; otherwise a note.",
        "do not load it with torch.load or pickle; take safetensors from a source you trust"},
       nullptr},
      {{"LV802", "path-leaves-directory", Severity::warning,
        "symbolic links of the folder, and file names inside index files",
        "A loader would read a file outside the adapter's folder. Links inside one Hugging Face "
        "cache repository are normal.",
        "replace the link by a copy of the file, or correct the name"},
       nullptr},
      {{"LV803", "remote-code", Severity::warning,
        "auto_map, custom_code and trust_remote_code in JSON files, and Python files",
        "Loading with trust_remote_code=True would run code that comes with the adapter. A LoRA "
        "adapter needs none.",
        "read the code before you load it so, or remove the entry and the files"},
       nullptr},
      {{"LV804", "chat-template-suspicious", Severity::error, "chat templates of the folder",
        "The template reaches into Python, loads other templates, or hides characters: no chat "
        "format needs that (web addresses are a note).",
        "take the base's chat template"},
       nullptr},
      {{"LV805", "size-out-of-proportion", Severity::warning,
        "bytes of headers and files against the tensors in them",
        "The file carries much more than the adapter: something is hidden in it, or tensors were "
        "saved as views of large storages.",
        "rewrite it: lora save ADAPTER -o DIR"},
       nullptr},
  };
  return rules;
}

}  // namespace lora::rules
