#include "text/chat_budget.h"

#include <algorithm>

namespace lora::text {
namespace {

// Real conversations need thousands of steps, and look through what they say some ten times.
constexpr std::uint64_t kBaseSteps = 2'000'000;
constexpr std::uint64_t kGivenBytesOfStep = 2;
// A conversation is held as text, in parts, and in what the template makes of them.
constexpr std::uint64_t kBaseBytes = std::uint64_t{32} << 20;
constexpr std::uint64_t kTimesGiven = 4;
// What is shared has a counter, an owner and two headers of the heap.
constexpr std::uint64_t kSharedBytes = 128;
constexpr int kMaxDepth = 200;

std::uint64_t bytes_of(const List& items) { return kSharedBytes + items.size() * sizeof(Value); }

std::uint64_t bytes_of(const Dict& dict) {
  std::uint64_t bytes = kSharedBytes;
  for (const auto& [key, member] : dict.members) bytes += sizeof(dict.members[0]) + key.size();
  return bytes;
}

bool reaches_namespace(const Value& value) {
  if (const auto* bound = value.as<Bound>(); bound && bound->self)
    return reaches_namespace(*bound->self);
  // A namespace may be among what a macro sees.
  if (const auto* macro = value.as<Macro>()) return macro->surroundings != nullptr;
  return value.dict() && value.dict()->is_namespace;
}

TemplateFault too_deep() {
  return {ErrorKind::resources,
          "values are nested more than " + std::to_string(kMaxDepth) + " levels deep"};
}

}  // namespace

RenderBudget::RenderBudget(std::uint64_t given)
    : most_steps_(kBaseSteps + given / kGivenBytesOfStep),
      most_bytes_(kBaseBytes + kTimesGiven * given) {}

void RenderBudget::step(std::uint64_t count) {
  steps_ += count;
  if (steps_ > most_steps_)
    throw TemplateFault{ErrorKind::resources,
                        "it does not end after " + std::to_string(most_steps_) + " steps"};
}

void RenderBudget::require(std::uint64_t bytes) const {
  if (bytes > most_bytes_ - held_)
    throw TemplateFault{ErrorKind::resources, "its values take more than " +
                                                  std::to_string(most_bytes_ >> 20) +
                                                  " MiB, which these messages do not justify"};
}

void RenderBudget::take(std::uint64_t bytes) {
  require(bytes);
  held_ += bytes;
}

int RenderBudget::depth_with(int depth, const Value& inner) const {
  require_storable(inner);
  return std::max(depth, inner.depth + 1);
}

void RenderBudget::require_storable(const Value& value) const {
  if (reaches_namespace(value))
    throw TemplateFault{ErrorKind::unsupported, "a namespace inside another value"};
  if (value.depth >= kMaxDepth) throw too_deep();
}

Value RenderBudget::text(std::string content) {
  const std::uint64_t bytes = kSharedBytes + content.capacity();
  return {std::shared_ptr<const std::string>(held(std::move(content), bytes))};
}

Value RenderBudget::list(List items, Shape shape) {
  int depth = 1;
  for (const Value& item : items) depth = depth_with(depth, item);
  const std::uint64_t bytes = bytes_of(items);
  return {held(std::move(items), bytes), depth, shape};
}

Value RenderBudget::dict(Dict dict) {
  int depth = 1;
  for (const auto& [key, member] : dict.members) depth = depth_with(depth, member);
  const std::uint64_t bytes = bytes_of(dict);
  return {held(std::move(dict), bytes), depth};
}

Value RenderBudget::macro(const Statement& definition, std::vector<Dict> surroundings) {
  if (surroundings.empty()) return {Macro{&definition, nullptr}};
  int depth = 1;
  std::uint64_t bytes = 0;
  for (const Dict& scope : surroundings) {
    bytes += bytes_of(scope);
    for (const auto& [name, value] : scope.members) depth = std::max(depth, value.depth + 1);
  }
  if (depth >= kMaxDepth) throw too_deep();
  return {Macro{&definition, held(std::move(surroundings), bytes)}, depth};
}

std::string RenderBudget::printed(const Value& value) {
  require(written_size(value));
  return text_of(value);
}

std::uint64_t RenderBudget::written_size(const Value& value) {
  constexpr std::uint64_t kNumber = 32;
  step();
  if (const std::string* text = value.string()) {
    look_through(text->size());
    return 4 * text->size() + kNumber;
  }
  std::uint64_t bytes = kNumber;
  if (const List* list = value.list())
    for (const Value& item : *list) bytes += written_size(item);
  if (const Dict* dict = value.dict())
    for (const auto& [key, member] : dict->members) bytes += 4 * key.size() + written_size(member);
  return bytes;
}

std::uint64_t size_of(const Value& value) {
  if (const std::string* text = value.string()) return sizeof(Value) + text->size();
  std::uint64_t bytes = sizeof(Value);
  if (const List* list = value.list())
    for (const Value& item : *list) bytes += size_of(item);
  if (const Dict* dict = value.dict())
    for (const auto& [key, member] : dict->members) bytes += key.size() + size_of(member);
  return bytes;
}

std::uint64_t size_of(const Dict& variables) {
  std::uint64_t bytes = 0;
  for (const auto& [name, value] : variables.members) bytes += name.size() + size_of(value);
  return bytes;
}

}  // namespace lora::text
