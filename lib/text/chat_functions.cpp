#include "text/chat_functions.h"

#include "text/chat_text.h"

namespace lora::text {
namespace {

[[noreturn]] void fault(std::string what) {
  throw TemplateFault{ErrorKind::incompatible, std::move(what)};
}

}  // namespace

const Value* Arguments::find(std::size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

const std::string& string_of(const Value& value, const std::string& user) {
  const std::string* text = value.string();
  if (text == nullptr) fault(user + " got " + std::string(type_name(value)) + ", expected str");
  return *text;
}

const std::string* string_or_none(const Value* value, const std::string& user) {
  return value == nullptr || value->as<None>() ? nullptr : &string_of(*value, user);
}

std::int64_t integer_of(const Value* value, std::int64_t fallback) {
  if (value == nullptr || value->as<None>()) return fallback;
  std::int64_t out = 0;
  if (!as_integer(*value, out)) fault("got " + std::string(type_name(*value)) + ", expected int");
  return out;
}

Value pairs_of(const Dict& dict, RenderBudget& budget) {
  List out;
  for (const auto& [key, member] : dict.members)
    out.push_back(budget.list(List{budget.text(key), member}, Shape::tuple));
  return budget.list(std::move(out), Shape::view);
}

Value listed(const Value& value, RenderBudget& budget) {
  if (const auto* shared = value.as<std::shared_ptr<List>>()) {
    if (value.shape != Shape::generator) return value;
    return budget.list(std::exchange(**shared, {}));
  }
  if (const std::string* text = value.string()) return characters(*text, budget);
  List out;
  if (const Dict* dict = value.dict(); dict && !dict->is_namespace) {
    for (const auto& [key, member] : dict->members) out.push_back(budget.text(key));
  } else if (!value.is_undefined()) {
    fault(std::string(type_name(value)) + " cannot be looped over");
  }
  return budget.list(std::move(out));
}

}  // namespace lora::text
