#include "checkpoint/gguf_merges.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>

namespace lora {
namespace {

struct Candidate {
  double score;
  std::uint32_t token;      // what it makes
  std::uint32_t left_size;  // in characters
  std::uint32_t right_size;
  std::uint32_t left;
  std::uint32_t right;
};

bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

std::optional<std::vector<std::pair<std::string_view, std::string_view>>> implied_merges(
    const std::vector<std::string_view>& tokens, const std::vector<double>& scores,
    std::uint64_t most_bytes) {
  std::unordered_map<std::string_view, std::uint32_t> ids;
  for (std::size_t id = 0; id < tokens.size(); ++id)
    ids.emplace(tokens[id], static_cast<std::uint32_t>(id));
  std::vector<Candidate> candidates;
  std::uint64_t bytes = 0;
  std::uint64_t tried = 0;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    const auto size =
        static_cast<std::uint32_t>(std::count_if(token.begin(), token.end(), begins_character));
    std::uint32_t left_size = 0;
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      if (!begins_character(token[cut])) continue;
      ++left_size;
      tried += token.size();
      if (tried > 64 * most_bytes) return std::nullopt;
      const auto left = ids.find(token.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(token.substr(cut));
      if (right == ids.end()) continue;
      bytes += token.size() + sizeof(Candidate);
      if (bytes > most_bytes) return std::nullopt;
      candidates.push_back({scores[id], static_cast<std::uint32_t>(id), left_size, size - left_size,
                            left->second, right->second});
    }
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    if (a.left_size != b.left_size) return a.left_size > b.left_size;
    if (a.right_size != b.right_size) return a.right_size > b.right_size;
    return std::tie(a.token, a.left, a.right) < std::tie(b.token, b.left, b.right);
  });
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  merges.reserve(candidates.size());
  for (const Candidate& candidate : candidates)
    merges.emplace_back(tokens[candidate.left], tokens[candidate.right]);
  return merges;
}

}  // namespace lora
