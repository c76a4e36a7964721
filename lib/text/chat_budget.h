// What one rendering of a chat template may take.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lora/base/error.h"
#include "text/chat_value.h"

namespace lora::text {

/// What a template does wrong; the interpreter adds file and line.
struct TemplateFault {
  ErrorKind kind = ErrorKind::incompatible;
  std::string what;
};

/// Counts steps, which end a template that would not end by itself, and the bytes that the values
/// of a template hold at a time. Everything here throws TemplateFault(resources) when the budget is
/// spent. Values made here give back what they hold when they go, so the budget must outlive them.
class RenderBudget {
 public:
  /// `given` bytes of messages and variables: long conversations may take more.
  explicit RenderBudget(std::uint64_t given);
  RenderBudget(const RenderBudget&) = delete;
  RenderBudget& operator=(const RenderBudget&) = delete;

  void step(std::uint64_t count = 1);
  /// Bytes that are copied or compared; 64 of them are a step.
  void look_through(std::uint64_t bytes) { step(bytes / 64); }
  /// Members of a dictionary that are looked at to find one.
  void search(const Dict& dict) { step(dict.members.size() / 16); }
  /// Asks before something of `bytes` is built.
  void require(std::uint64_t bytes) const;
  void take(std::uint64_t bytes);
  void give_back(std::uint64_t bytes) { held_ -= bytes; }

  Value text(std::string content);
  /// Both refuse values nested too deep and namespaces inside: what holds itself has no end.
  Value list(List items, Shape shape = Shape::list);
  Value dict(Dict members);
  Value macro(const Statement& definition, std::vector<Dict> surroundings);
  /// Refuses what no namespace may hold.
  void require_storable(const Value& value) const;

  /// What `{{ value }}` prints, after asking for the room.
  std::string printed(const Value& value);
  /// Upper bound of the bytes that `value` takes once written out, with every value that it holds
  /// several times counted as often.
  std::uint64_t written_size(const Value& value);

 private:
  template <typename T>
  std::shared_ptr<T> held(T content, std::uint64_t bytes) {
    take(bytes);
    look_through(bytes);
    return {new T(std::move(content)), [this, bytes](const T* gone) {
              delete gone;
              give_back(bytes);
            }};
  }
  int depth_with(int depth, const Value& inner) const;

  std::uint64_t most_steps_;
  std::uint64_t most_bytes_;
  std::uint64_t steps_ = 0;
  std::uint64_t held_ = 0;
};

/// Bytes of what came from outside, for RenderBudget(given).
std::uint64_t size_of(const Value& value);
std::uint64_t size_of(const Dict& variables);

}  // namespace lora::text
