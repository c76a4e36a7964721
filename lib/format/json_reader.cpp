#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <utility>

#include "format/allocation_budget.h"
#include "format/in_quotes.h"
#include "format/json_text.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/format/json.h"
#include "lora/format/json_lenient.h"
#include "lora/format/json_stream.h"

namespace lora {
namespace {

constexpr std::size_t kMaxDepth = 128;
constexpr std::size_t kMaxFileSize = std::size_t{8} << 20;
constexpr std::size_t kMaxStreamedSize = std::size_t{256} << 20;

/// A configuration is kept twice by its reader (its values, and how they were spelled).
constexpr std::uint64_t kFileBase = std::uint64_t{16} << 20;

/// Hash table and copy of a key of an object beyond a handful of members, per member.
constexpr std::uint64_t kIndexBytes = 96;
/// What the visitor of a streamed member keeps besides its key.
constexpr std::uint64_t kVisitedBytes = 224;

Error malformed_json(std::string_view context, const std::string& reason) {
  return Error(ErrorKind::malformed, "cannot parse " + std::string(context) + " as JSON: " + reason)
      .in_file(std::string(context));
}

/// What is done besides building the value.
struct Extras {
  const std::vector<JsonPlace>* places = nullptr;  // objects whose members go to `visit`
  const JsonMemberVisitor* visit = nullptr;
  LenientJson* lenient = nullptr;  // keys given twice go there instead of being refused
};

// Builds the value from events, because a DOM parse would hide duplicate keys. Every allocation is
// paid for first: a tiny member costs fifty times its text.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view text, std::string_view context, AllocationBudget budget,
          const Extras& extras)
      : text_(text), context_(context), budget_(budget), extras_(extras) {}

  bool null() override { return add(Json()); }
  bool boolean(bool value) override { return add(Json(value)); }
  bool number_integer(number_integer_t value) override { return add(Json(std::int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) override { return add(Json(std::uint64_t{value})); }
  bool number_float(number_float_t value, const string_t&) override { return add(Json(value)); }
  bool string(string_t& value) override {
    spend_text(value);
    return add(Json(std::string_view(value)));
  }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Json(JsonObject())); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    const Json* earlier = level.place == kKept ? level.container.as_object()->find(name) : nullptr;
    if (earlier != nullptr && extras_.lenient == nullptr) throw duplicate(name);
    level.spent_before_member = spent_;
    spend_text(name);
    level.key = name;
    if (earlier != nullptr) note_repeated(*earlier);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json(JsonArray())); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& failure) override {
    if (const std::string word = python_number(text_, position); !word.empty()) {
      const std::string path = path_of_member();
      throw malformed_json(context_, "at byte " + std::to_string(position) + ": " +
                                         (path.empty() ? "it" : in_quotes(path)) + " is " + word +
                                         ", which Python writes and JSON does not have, expected a "
                                         "finite number")
          .with_hint("replace " + word + " by the number that was meant");
    }
    throw malformed_json(context_,
                         "at byte " + std::to_string(position) + ": " + reason_of(failure));
  }

  Json take() { return std::move(root_); }

 private:
  static constexpr std::size_t kKept = ~std::size_t{0};

  struct Level {
    Json container;
    std::size_t place = kKept;  // index into the streamed places, whose members are handed over
    std::string key;            // of the member being read
    std::uint64_t spent_before_member = 0;
  };

  Error duplicate(const std::string& name) const {
    return malformed_json(context_, "duplicate key " + in_quotes(name));
  }

  void spend(std::uint64_t bytes) {
    if (!budget_.spend(bytes))
      throw malformed_json(context_,
                           "its values would take more memory than a file of its size justifies");
    spent_ += bytes;
  }
  void give_back(std::uint64_t bytes) {
    budget_.give_back(bytes);
    spent_ -= bytes;
  }
  void spend_text(const std::string& text) {
    if (text.size() >= sizeof(std::string) / 2) spend(text.size() + sizeof(std::string) / 2);
  }
  // Containers double; while one grows, its old and its new items are there at once.
  void spend_growth(std::size_t size, std::uint64_t item) {
    if (size != 0 && !std::has_single_bit(size)) return;
    spend(std::max<std::uint64_t>(1, 2 * size) * item);
    give_back(size * item);
  }

  std::string path_of_member() const {
    std::string path;
    for (const Level& level : levels_)
      path += (path.empty() || level.key.empty() ? "" : ".") + level.key;
    return path;
  }

  // The earlier value is paid for already and about to be replaced.
  void note_repeated(const Json& earlier) {
    std::string path = path_of_member();
    spend(3 * (sizeof(path) + sizeof(Json)) + path.size());
    extras_.lenient->repeated_keys.push_back(std::move(path));
    extras_.lenient->earlier_values.push_back(earlier);
  }

  std::size_t place_of_next() const {
    if (extras_.places == nullptr) return kKept;
    for (std::size_t i = 0; i < extras_.places->size(); ++i) {
      const JsonPlace& place = (*extras_.places)[i];
      if (place.size() == levels_.size() &&
          std::equal(place.begin(), place.end(), levels_.begin(),
                     [](const std::string& key, const Level& level) {
                       return level.container.is_object() && level.key == key;
                     }))
        return i;
    }
    return kKept;
  }

  bool open(Json container) {
    if (levels_.size() >= kMaxDepth)
      throw malformed_json(context_, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    const std::size_t place = container.is_object() ? place_of_next() : kKept;
    levels_.push_back({std::move(container), place, {}, 0});
    return true;
  }
  bool close() {
    Json done = std::move(levels_.back().container);
    levels_.pop_back();
    return add(std::move(done));
  }
  bool add(Json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Level& level = levels_.back();
    if (JsonArray* array = level.container.as_array()) {
      spend_growth(array->size(), sizeof(Json));
      array->push_back(std::move(value));
    } else if (level.place == kKept) {
      JsonObject& object = *level.container.as_object();
      spend_growth(object.size(), sizeof(JsonMember));
      spend(kIndexBytes + level.key.size());
      object[level.key] = std::move(value);
    } else {
      if (!(*extras_.visit)(level.place, level.key, std::move(value))) throw duplicate(level.key);
      give_back(spent_ - level.spent_before_member);
      spend(kVisitedBytes + level.key.size());
    }
    return true;
  }

  std::string_view text_, context_;
  AllocationBudget budget_;
  Extras extras_;
  std::uint64_t spent_ = 0;
  Json root_;
  std::vector<Level> levels_;
};

void require_size(std::size_t size, std::size_t most, std::string_view context) {
  if (size > most)
    throw malformed_json(context, "found " + std::to_string(size) + " bytes, expected at most " +
                                      std::to_string(most));
}

Json parse(std::string_view text, std::string_view context, std::size_t longest_token,
           AllocationBudget budget, const Extras& extras = {}) {
  // The library skips a byte order mark and takes a NUL for the end of the text.
  if (text.starts_with("\xEF\xBB\xBF"))
    throw malformed_json(context, "found a byte order mark, expected plain UTF-8");
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    throw malformed_json(context, "at byte " + std::to_string(nul + 1) + ": found a NUL byte");
  if (has_longer_token(text, longest_token))
    throw malformed_json(context, "found a string or number of more than " +
                                      std::to_string(longest_token) + " bytes");
  Builder builder(text, context, budget, extras);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

Json parse_file(const std::filesystem::path& path, std::size_t most, std::uint64_t base,
                const Extras& extras) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  require_size(bytes.size(), most, path.string());
  return parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string(),
               kLongestTokenOfFile, AllocationBudget(bytes.size(), base), extras);
}

}  // namespace

Json parse_json(std::string_view text, std::string_view context) {
  return parse(text, context, kLongestTokenOfText, AllocationBudget(2 * text.size()));
}

Json read_json_file(const std::filesystem::path& path) {
  return parse_file(path, kMaxFileSize, kFileBase, {});
}

LenientJson parse_json_lenient(std::string_view text, std::string_view context) {
  require_size(text.size(), kMaxFileSize, context);
  LenientJson result;
  result.value = parse(text, context, kLongestTokenOfFile, AllocationBudget(text.size(), kFileBase),
                       {nullptr, nullptr, &result});
  return result;
}

Json stream_json_file(const std::filesystem::path& path, const std::vector<JsonPlace>& places,
                      const JsonMemberVisitor& visit) {
  return parse_file(path, kMaxStreamedSize, AllocationBudget::kBase, {&places, &visit, nullptr});
}

}  // namespace lora
