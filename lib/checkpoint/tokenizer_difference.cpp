#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <utility>

#include "format/allocation_budget.h"
#include "format/json_events.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/checkpoint/tokenizer_files.h"

namespace lora {
namespace {

constexpr double kLargestId = 1e15;

// A token in the table, and once more in the list of those that the other file has not.
constexpr std::uint64_t kTokenBytes = 160;
constexpr std::uint64_t kBase = std::uint64_t{24} << 20;

using Vocabulary = std::unordered_map<std::string, std::int64_t>;

/// Collects `model.vocab` (an object token -> id; for Unigram models a list of [token, score] whose
/// position is the id) and `added_tokens` (objects with `content` and `id`).
class VocabularyReader final : public JsonEvents {
 public:
  VocabularyReader(std::uint64_t file_size, std::string context)
      : budget_(file_size, kBase), context_(std::move(context)) {}

  void open_object() override { open('{'); }
  void open_array() override { open('['); }
  void close() override {
    if (is_at("added_tokens", 3) && !content_.empty()) {
      spend(content_);
      tokens_[std::exchange(content_, {})] = id_;
    }
    path_.pop_back();
    next_item();
  }
  void key(std::string_view name) override { path_.back().key = name; }
  void text(std::string_view value) override {
    if (is_at("added_tokens", 3) && path_.back().key == "content") content_ = value;
    // [token, score]: the token stands first.
    if (is_in_vocabulary(4) && path_.back().kind == '[' && path_.back().index == 0) {
      spend(value);
      tokens_.emplace(value, path_[2].index);
    }
    next_item();
  }
  void number(double value) override {
    const bool is_id = value >= 0 && value < kLargestId;
    const std::int64_t id = is_id ? static_cast<std::int64_t>(value) : -1;
    if (is_at("added_tokens", 3) && path_.back().key == "id") id_ = id;
    if (is_in_vocabulary(3) && path_.back().kind == '{') {
      spend(path_.back().key);
      tokens_.emplace(path_.back().key, id);
    }
    next_item();
  }
  void other() override { next_item(); }

  Vocabulary take() { return std::move(tokens_); }

 private:
  struct Level {
    char kind;
    std::string key;         ///< of the member being read
    std::int64_t index = 0;  ///< of the item being read
  };
  void spend(std::string_view token) {
    if (!budget_.spend(kTokenBytes + 2 * token.size()))
      throw Error(ErrorKind::malformed, "cannot read " + context_ +
                                            ": its vocabulary would take more memory than a file "
                                            "of its size justifies")
          .in_file(context_);
  }
  void open(char kind) { path_.push_back({kind, {}, 0}); }
  void next_item() {
    if (!path_.empty()) ++path_.back().index;
  }
  bool is_at(std::string_view top_key, std::size_t depth) const {
    return path_.size() == depth && path_[0].key == top_key;
  }
  bool is_in_vocabulary(std::size_t depth) const {
    return is_at("model", depth) && path_[1].key == "vocab";
  }

  AllocationBudget budget_;
  std::string context_;
  std::vector<Level> path_;
  Vocabulary tokens_;
  std::string content_;
  std::int64_t id_ = 0;
};

Vocabulary read_vocabulary(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  VocabularyReader reader(file->bytes().size(), path.string());
  scan_json({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()},
            path.string(), reader);
  return reader.take();
}

std::vector<std::string> tokens_outside(const Vocabulary& tokens, const Vocabulary& other) {
  std::vector<std::string> outside;
  for (const auto& [token, id] : tokens)
    if (!other.contains(token)) outside.push_back(token);
  std::sort(outside.begin(), outside.end());
  return outside;
}

}  // namespace

TokenizerDifference compare_tokenizers(const std::filesystem::path& a,
                                       const std::filesystem::path& b) {
  const Vocabulary in_a = read_vocabulary(a);
  const Vocabulary in_b = read_vocabulary(b);
  TokenizerDifference difference{
      in_a.size(), in_b.size(), tokens_outside(in_a, in_b), tokens_outside(in_b, in_a), {}};
  for (const auto& [token, id] : in_a) {
    const auto other = in_b.find(token);
    if (other != in_b.end() && other->second != id) difference.renumbered.push_back(token);
  }
  std::sort(difference.renumbered.begin(), difference.renumbered.end());
  return difference;
}

}  // namespace lora
