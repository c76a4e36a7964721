#include "cli/option_set.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <sstream>
#include <utility>

#include "cli/suggest.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"

namespace lora::cli {
namespace {

Error bad_value(std::string_view label, const std::string& found, const std::string& expected) {
  return Error(ErrorKind::usage,
               "cannot use \"" + found + "\" for " + std::string(label) + ", expected " + expected);
}

std::vector<std::string> split_names(std::string_view names) {
  std::vector<std::string> result;
  while (!names.empty()) {
    const auto comma = names.find(',');
    result.emplace_back(names.substr(0, comma));
    names = comma == std::string_view::npos ? std::string_view() : names.substr(comma + 1);
  }
  return result;
}

std::string longest(const std::vector<std::string>& names) {
  return *std::max_element(names.begin(), names.end(),
                           [](const auto& a, const auto& b) { return a.size() < b.size(); });
}

std::string short_number(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

void check_choice(std::string_view label, const std::string& value,
                  const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  std::string expected;
  for (const auto& choice : choices) expected += (expected.empty() ? "" : ", ") + choice;
  Error error = bad_value(label, value, "one of " + expected);
  if (const auto close = closest(value, choices)) error.with_hint("did you mean " + *close + "?");
  throw error;
}

}  // namespace

std::string OptionSpec::key() const {
  std::string name = longest(names);
  const auto first = name.find_first_not_of('-');
  return first == std::string::npos ? name : name.substr(first);
}

std::string OptionSpec::label() const { return longest(names); }

std::int64_t parse_integer(std::string_view label, const std::string& text, std::int64_t minimum) {
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() || value < minimum)
    throw bad_value(label, text, "an integer of at least " + std::to_string(minimum));
  return value;
}

double parse_number(std::string_view label, const std::string& text, double minimum,
                    double maximum) {
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() ||
      !std::isfinite(value) || value < minimum || value > maximum) {
    std::string expected = "a number";
    if (std::isfinite(minimum)) expected += " from " + short_number(minimum);
    if (std::isfinite(maximum)) expected += " to " + short_number(maximum);
    throw bad_value(label, text, expected);
  }
  return value;
}

std::uint64_t parse_size(std::string_view label, const std::string& text) {
  struct Unit {
    std::string_view suffix;
    std::uint64_t bytes;
  };
  static constexpr std::array<Unit, 8> kUnits{{{"KiB", 1ULL << 10},
                                               {"MiB", 1ULL << 20},
                                               {"GiB", 1ULL << 30},
                                               {"KB", 1000},
                                               {"MB", 1000 * 1000},
                                               {"GB", 1000 * 1000 * 1000},
                                               {"B", 1},
                                               {"", 1}}};
  std::uint64_t count = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view suffix(result.ptr, text.data() + text.size());
  if (result.ec == std::errc() && count > 0) {
    for (const Unit& unit : kUnits) {
      if (suffix != unit.suffix) continue;
      if (const auto bytes = checked_mul(count, unit.bytes)) return *bytes;
    }
  }
  throw bad_value(label, text, "a size such as 500MB, 5GB or 2GiB");
}

OptionSpec& OptionSet::add(std::string_view names, std::string metavar, std::string help,
                           Arity arity,
                           std::function<void(const std::vector<std::string>&)> assign) {
  OptionSpec spec;
  spec.names = split_names(names);
  spec.metavar = std::move(metavar);
  spec.help = std::move(help);
  spec.group = group_;
  spec.arity = arity;
  spec.assign = std::move(assign);
  specs_.push_back(std::move(spec));
  return specs_.back();
}

OptionSpec& OptionSet::flag(std::string_view names, bool& target, std::string help) {
  return add(names, "", std::move(help), Arity::flag, [&target](const auto&) { target = true; });
}

void OptionSet::toggle(std::string_view name, bool& target, std::string help) {
  const std::string base(name);
  OptionSpec& yes = flag("--" + base, target, std::move(help));
  yes.default_text = target ? "on" : "off";
  OptionSpec& no = add("--no-" + base, "", "the opposite of --" + base, Arity::flag,
                       [&target](const auto&) { target = false; });
  no.is_hidden = !target;
}

OptionSpec& OptionSet::text(std::string_view names, std::string& target, std::string metavar,
                            std::string help) {
  OptionSpec& spec = add(names, std::move(metavar), std::move(help), Arity::one,
                         [&target](const auto& values) { target = values.back(); });
  spec.default_text = target;
  return spec;
}

OptionSpec& OptionSet::text(std::string_view names, std::optional<std::string>& target,
                            std::string metavar, std::string help) {
  return add(names, std::move(metavar), std::move(help), Arity::one,
             [&target](const auto& values) { target = values.back(); });
}

OptionSpec& OptionSet::optional_text(std::string_view names, bool& asked,
                                     std::optional<std::string>& target, std::string metavar,
                                     std::string help) {
  return add(names, std::move(metavar), std::move(help), Arity::optional,
             [&asked, &target](const auto& values) {
               asked = true;
               if (!values.back().empty()) target = values.back();
             });
}

OptionSpec& OptionSet::choice(std::string_view names, std::string& target,
                              std::vector<std::string> choices, std::string help) {
  const std::string label = longest(split_names(names));
  OptionSpec& spec =
      add(names, "", std::move(help), Arity::one, [&target, label, choices](const auto& values) {
        check_choice(label, values.back(), choices);
        target = values.back();
      });
  spec.default_text = target;
  spec.choices = std::move(choices);
  return spec;
}

OptionSpec& OptionSet::choice(std::string_view names, std::optional<std::string>& target,
                              std::vector<std::string> choices, std::string help) {
  const std::string label = longest(split_names(names));
  OptionSpec& spec =
      add(names, "", std::move(help), Arity::one, [&target, label, choices](const auto& values) {
        check_choice(label, values.back(), choices);
        target = values.back();
      });
  spec.choices = std::move(choices);
  return spec;
}

OptionSpec& OptionSet::integer(std::string_view names, std::int64_t& target, std::int64_t minimum,
                               std::string help) {
  const std::string label = longest(split_names(names));
  OptionSpec& spec =
      add(names, "N", std::move(help), Arity::one, [&target, label, minimum](const auto& values) {
        target = parse_integer(label, values.back(), minimum);
      });
  spec.default_text = std::to_string(target);
  return spec;
}

OptionSpec& OptionSet::integer(std::string_view names, std::optional<std::int64_t>& target,
                               std::int64_t minimum, std::string help) {
  const std::string label = longest(split_names(names));
  return add(names, "N", std::move(help), Arity::one,
             [&target, label, minimum](const auto& values) {
               target = parse_integer(label, values.back(), minimum);
             });
}

OptionSpec& OptionSet::seed(std::string_view names, std::uint64_t& target, std::string help) {
  const std::string label = longest(split_names(names));
  OptionSpec& spec =
      add(names, "N", std::move(help), Arity::one, [&target, label](const auto& values) {
        target = static_cast<std::uint64_t>(parse_integer(label, values.back(), 0));
      });
  spec.default_text = std::to_string(target);
  return spec;
}

OptionSpec& OptionSet::number(std::string_view names, double& target, double minimum,
                              double maximum, std::string help) {
  const std::string label = longest(split_names(names));
  OptionSpec& spec = add(names, "X", std::move(help), Arity::one,
                         [&target, label, minimum, maximum](const auto& values) {
                           target = parse_number(label, values.back(), minimum, maximum);
                         });
  spec.default_text = short_number(target);
  return spec;
}

OptionSpec& OptionSet::number(std::string_view names, std::optional<double>& target, double minimum,
                              double maximum, std::string help) {
  const std::string label = longest(split_names(names));
  return add(names, "X", std::move(help), Arity::one,
             [&target, label, minimum, maximum](const auto& values) {
               target = parse_number(label, values.back(), minimum, maximum);
             });
}

OptionSpec& OptionSet::size(std::string_view names, std::uint64_t& target, std::string help) {
  const std::string label = longest(split_names(names));
  return add(names, "SIZE", std::move(help), Arity::one,
             [&target, label](const auto& values) { target = parse_size(label, values.back()); });
}

OptionSpec& OptionSet::list(std::string_view names, std::vector<std::string>& target,
                            std::string metavar, std::string help) {
  return add(names, std::move(metavar), std::move(help), Arity::one, [&target](const auto& values) {
    target.clear();
    for (const std::string& value : values) {
      if (value.starts_with("re:")) {
        target.push_back(value);
        continue;
      }
      for (const std::string& item : split_names(value))
        if (!item.empty()) target.push_back(item);
    }
  });
}

OptionSpec& OptionSet::many(std::string_view names, std::vector<std::string>& target,
                            std::string metavar, std::string help) {
  return add(names, std::move(metavar), std::move(help), Arity::many,
             [&target](const auto& values) { target = values; });
}

OptionSpec& OptionSet::each(std::string_view names, std::vector<std::string>& target,
                            std::string metavar, std::string help) {
  return add(names, std::move(metavar), std::move(help), Arity::each,
             [&target](const auto& values) { target = values; });
}

OptionSpec& OptionSet::positional(std::string metavar, std::string& target, std::string help) {
  OptionSpec& spec = add(metavar, metavar, std::move(help), Arity::positional,
                         [&target](const auto& values) { target = values.back(); });
  spec.is_required = true;
  return spec;
}

OptionSpec& OptionSet::rest(std::string metavar, std::vector<std::string>& target,
                            std::string help) {
  OptionSpec& spec = add(metavar, metavar, std::move(help), Arity::rest,
                         [&target](const auto& values) { target = values; });
  spec.is_required = true;
  return spec;
}

}  // namespace lora::cli
