#include "lora/format/torch_file.h"

#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <tuple>

#include "format/in_quotes.h"
#include "format/torch_container.h"
#include "format/torch_view.h"
#include "format/utf8.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"

namespace lora {
namespace {

using pickle::Dict;
using pickle::Document;

constexpr std::string_view kZipStart("PK\x03\x04", 4);
constexpr char kPickleStart = '\x80';
constexpr std::size_t kTarMagicAt = 257;

/// What an entry of a state dict costs besides its name: the tensor, and what the verbs say of it.
constexpr std::uint64_t kEntryBytes = 1536;

/// Keys under which training scripts put the state dict, in order of preference.
constexpr std::array<std::string_view, 4> kNests = {"model", "state_dict", "module",
                                                    "model_state_dict"};

bool starts_like_pickle(std::string_view start) {
  return start.size() >= 2 && start[0] == kPickleStart && start[1] >= 1 && start[1] <= 5;
}

TorchContents read_contents(std::span<const std::byte> file, AllocationBudget& budget,
                            bool& is_legacy) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with(kZipStart)) return read_zip_container(file, budget);
  is_legacy = true;
  if (starts_like_pickle(text)) return read_legacy_container(file, budget);
  if (text.size() > kTarMagicAt && text.substr(kTarMagicAt).starts_with("ustar"))
    throw Error(ErrorKind::unsupported, "found the tar form that torch wrote before 0.1.10")
        .with_hint("load it in Python and save it again with a current torch");
  throw Error(ErrorKind::malformed,
              file.empty() ? "the file is empty" : "found neither a zip archive nor a pickle");
}

bool holds_tensors(const Document& document, const Dict& dict) {
  for (const auto& item : dict.items)
    if (std::holds_alternative<pickle::TensorRef>(document[item.second])) return true;
  return false;
}

std::string key_name(const Document& document, pickle::Ref key) {
  if (const auto* text = std::get_if<std::string_view>(&document[key]))
    return is_utf8(*text) ? std::string(*text) : printable(*text);
  if (const auto* number = std::get_if<std::int64_t>(&document[key]))
    return std::to_string(*number);
  return "(" + std::string(describe(document[key])) + ")";
}

void pay_for_entries(const Document& document, const Dict& dict, AllocationBudget& budget) {
  for (const auto& item : dict.items) {
    const auto* name = std::get_if<std::string_view>(&document[item.first]);
    if (!budget.spend(kEntryBytes + (name != nullptr ? 2 * name->size() : 0)))
      throw Error(ErrorKind::unsupported,
                  "its state dict has more entries than a file of its size justifies");
  }
}

/// Finds the dict of tensors; fills `nested_under` and, when nested, the neighbours in `ignored`.
const Dict& find_state_dict(const Document& document, TorchFile& file) {
  const auto* root = std::get_if<Dict>(&document.root_value());
  if (root == nullptr)
    throw Error(ErrorKind::unsupported, "found " + std::string(describe(document.root_value())) +
                                            ", expected a dict of tensors");
  for (const std::string_view nest : kNests)
    for (const auto& [key, value] : root->items) {
      const auto* name = std::get_if<std::string_view>(&document[key]);
      const auto* inner = std::get_if<Dict>(&document[value]);
      if (name == nullptr || *name != nest || inner == nullptr || !holds_tensors(document, *inner))
        continue;
      file.nested_under = nest;
      for (const auto& other : root->items)
        if (other.first != key) file.ignored.push_back(key_name(document, other.first));
      return *inner;
    }
  if (root->items.empty() || holds_tensors(document, *root)) return *root;
  std::string keys;
  constexpr std::size_t kShown = 5;
  for (std::size_t i = 0; i < root->items.size() && i < kShown; ++i)
    keys += (i == 0 ? "" : ", ") + in_quotes(key_name(document, root->items[i].first));
  if (root->items.size() > kShown) keys += ", ...";
  throw Error(ErrorKind::unsupported, "found a dict without tensors (keys " + keys +
                                          "), expected a state dict at the top level or under "
                                          "model, state_dict, module or model_state_dict");
}

/// Builds the entries; equal views of one storage share one Tensor.
class EntryBuilder {
 public:
  EntryBuilder(const TorchContents& contents, std::shared_ptr<const MappedFile> mapping,
               AllocationBudget& budget)
      : contents_(contents), mapping_(std::move(mapping)), budget_(budget) {}

  TorchEntry build(std::string name, const pickle::TensorView& view) {
    const StorageBytes& storage = contents_.storages[view.storage];
    TorchEntry entry;
    entry.storage_id = storage.id;
    entry.storage_offset = view.offset;
    entry.strides = view.strides;
    try {
      entry.tensor = is_contiguous(view) ? view_tensor(view, storage.bytes, mapping_, budget_)
                                         : copy_once(view, storage);
    } catch (Error& error) {
      throw Error(error.kind(), "tensor " + in_quotes(name) + ": " + error.message())
          .in_tensor(name)
          .with_hint(error.hint());
    }
    entry.name = std::move(name);
    return entry;
  }

 private:
  using Key = std::tuple<std::uint64_t, const pickle::ElementType*, std::uint64_t,
                         std::vector<std::int64_t>, std::vector<std::int64_t>>;

  const Tensor& copy_once(const pickle::TensorView& view, const StorageBytes& storage) {
    const Key key(storage.id, view.element, view.offset, view.shape, view.strides);
    const auto found = copies_.find(key);
    if (found != copies_.end()) return found->second;
    return copies_.emplace(key, view_tensor(view, storage.bytes, mapping_, budget_)).first->second;
  }

  const TorchContents& contents_;
  std::shared_ptr<const MappedFile> mapping_;
  AllocationBudget& budget_;
  std::map<Key, Tensor> copies_;
};

void read_entries(const TorchContents& contents, const std::shared_ptr<const MappedFile>& mapping,
                  AllocationBudget& budget, TorchFile& file) {
  const Document& document = contents.document;
  if (const auto* root = std::get_if<Dict>(&document.root_value()))
    pay_for_entries(document, *root, budget);
  const Dict& dict = find_state_dict(document, file);
  if (!file.nested_under.empty()) pay_for_entries(document, dict, budget);
  const std::string prefix = file.nested_under.empty() ? "" : file.nested_under + ".";
  EntryBuilder builder(contents, mapping, budget);
  file.entries.reserve(dict.items.size());
  std::set<std::string_view> names;
  for (const auto& [key, value] : dict.items) {
    const auto* tensor = std::get_if<pickle::TensorRef>(&document[value]);
    const auto* name = std::get_if<std::string_view>(&document[key]);
    if (tensor == nullptr || name == nullptr) {
      file.ignored.push_back(prefix + key_name(document, key));
      continue;
    }
    if (!is_utf8(*name))
      throw Error(ErrorKind::malformed, "tensor name " + in_quotes(*name) + " is not valid UTF-8");
    if (!names.insert(*name).second)
      throw Error(ErrorKind::malformed, "two tensors are named " + in_quotes(*name));
    file.entries.push_back(builder.build(std::string(*name), document.tensors[tensor->index]));
  }
}

}  // namespace

bool looks_like_torch_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  std::array<char, 4> start{};
  std::ifstream in(path, std::ios::binary);
  in.read(start.data(), start.size());
  const std::string_view text(start.data(), static_cast<std::size_t>(in.gcount()));
  return text == kZipStart || starts_like_pickle(text);
}

TorchFile read_torch_file(const std::filesystem::path& path) {
  const auto mapping = MappedFile::open(path);
  TorchFile file;
  file.path = path;
  try {
    AllocationBudget budget(mapping->bytes().size());
    const TorchContents contents = read_contents(mapping->bytes(), budget, file.is_legacy);
    read_entries(contents, mapping, budget, file);
  } catch (const Error& error) {
    throw Error(error.kind(), "cannot read torch file " + path.string() + ": " + error.message())
        .in_file(path.string())
        .in_tensor(error.tensor())
        .with_hint(error.hint());
  }
  return file;
}

}  // namespace lora
