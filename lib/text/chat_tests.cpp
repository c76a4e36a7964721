// The tests of the template language: what stands behind `is`.
#include <algorithm>
#include <map>

#include "text/chat_functions.h"
#include "text/chat_operators.h"
#include "text/chat_text.h"

namespace lora::text {
namespace {

struct Subject {
  const std::string& name;
  const Value& value;
  const std::vector<Value>& operands;
  RenderBudget& budget;

  const Value& operand() const {
    if (operands.empty())
      throw TemplateFault{ErrorKind::incompatible, "is " + name + " needs an operand"};
    return operands[0];
  }
  std::int64_t integer(const Value& of) const {
    std::int64_t out = 0;
    if (!as_integer(of, out))
      throw TemplateFault{ErrorKind::incompatible,
                          "is " + name + " got " + std::string(type_name(of))};
    return out;
  }
  bool compared(const char* op) const {
    return is_true(apply_binary(op, value, operand(), budget));
  }
};

using Test = bool (*)(const Subject&);

bool is_boolean(const Value& value) { return value.as<bool>() != nullptr; }

bool is_iterable(const Value& value) {
  return value.list() || value.string() || value.is_undefined() ||
         (value.dict() && !value.dict()->is_namespace);
}

bool is_sequence(const Value& value) {
  return is_iterable(value) && (value.list() == nullptr || value.shape <= Shape::range);
}

bool has_case(const Subject& subject, bool upper) {
  const std::string text = subject.budget.printed(subject.value);
  return upper ? is_upper(text) : is_lower(text);
}

// Only what Python has one of.
bool is_same(const Subject& s) {
  const Value& other = s.operand();
  if (s.value.data.index() != other.data.index()) return false;
  if (!s.value.as<None>() && !is_boolean(s.value))
    throw TemplateFault{ErrorKind::unsupported, "sameas of a " + std::string(type_name(s.value))};
  return are_equal(s.value, other, s.budget);
}

const std::map<std::string_view, Test>& table() {
  static const std::map<std::string_view, Test> tests{
      {"defined", [](const Subject& s) { return !s.value.is_undefined(); }},
      {"undefined", [](const Subject& s) { return s.value.is_undefined(); }},
      {"none", [](const Subject& s) { return s.value.as<None>() != nullptr; }},
      {"string", [](const Subject& s) { return s.value.string() != nullptr; }},
      {"boolean", [](const Subject& s) { return is_boolean(s.value); }},
      {"true", [](const Subject& s) { return is_boolean(s.value) && is_true(s.value); }},
      {"false", [](const Subject& s) { return is_boolean(s.value) && !is_true(s.value); }},
      {"mapping", [](const Subject& s) { return s.value.dict() && !s.value.dict()->is_namespace; }},
      {"iterable", [](const Subject& s) { return is_iterable(s.value); }},
      {"sequence", [](const Subject& s) { return is_sequence(s.value); }},
      {"number",
       [](const Subject& s) {
         double number = 0;
         return as_number(s.value, number);
       }},
      {"integer", [](const Subject& s) { return s.value.as<std::int64_t>() != nullptr; }},
      {"float", [](const Subject& s) { return s.value.as<double>() != nullptr; }},
      {"callable", [](const Subject& s) { return s.value.as<Macro>() || s.value.as<Bound>(); }},
      {"odd", [](const Subject& s) { return s.integer(s.value) % 2 != 0; }},
      {"even", [](const Subject& s) { return s.integer(s.value) % 2 == 0; }},
      {"divisibleby",
       [](const Subject& s) {
         const std::int64_t by = s.integer(s.operand());
         if (by == 0) throw TemplateFault{ErrorKind::incompatible, "division by zero"};
         return by == -1 || s.integer(s.value) % by == 0;
       }},
      {"lower", [](const Subject& s) { return has_case(s, false); }},
      {"upper", [](const Subject& s) { return has_case(s, true); }},
      {"sameas", is_same},
      {"filter", [](const Subject& s) { return has_filter(string_of(s.value, "is filter")); }},
      {"test", [](const Subject& s) { return has_test(string_of(s.value, "is test")); }},
      {"in", [](const Subject& s) { return s.compared("in"); }},
      {"eq", [](const Subject& s) { return s.compared("=="); }},
      {"ne", [](const Subject& s) { return s.compared("!="); }},
      {"lt", [](const Subject& s) { return s.compared("<"); }},
      {"le", [](const Subject& s) { return s.compared("<="); }},
      {"gt", [](const Subject& s) { return s.compared(">"); }},
      {"ge", [](const Subject& s) { return s.compared(">="); }},
  };
  return tests;
}

std::string_view plain_name(std::string_view name) {
  static const std::map<std::string_view, std::string_view> others{
      {"==", "eq"}, {"equalto", "eq"}, {"!=", "ne"},          {"<", "lt"}, {"lessthan", "lt"},
      {"<=", "le"}, {">", "gt"},       {"greaterthan", "gt"}, {">=", "ge"}};
  const auto other = others.find(name);
  return other == others.end() ? name : other->second;
}

}  // namespace

bool has_test(std::string_view name) { return table().contains(plain_name(name)); }

bool apply_test(const std::string& name, const Value& value, const std::vector<Value>& operands,
                RenderBudget& budget) {
  const auto test = table().find(plain_name(name));
  if (test == table().end()) throw TemplateFault{ErrorKind::unsupported, "the test " + name};
  return test->second({name, value, operands, budget});
}

}  // namespace lora::text
