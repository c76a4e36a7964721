// The flags and arguments of a verb, declared once: parsing, help, completion and settings files
// all read this table. Values are checked when they are assigned, and every complaint is
// Error(usage) that names the flag, what was found and what was expected.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lora::cli {

enum class Arity {
  flag,        ///< no value
  one,         ///< one value; the last one given wins
  optional,    ///< alone, or with a value joined by "="
  each,        ///< one value an occurrence; all of them count
  many,        ///< each occurrence takes one or more values
  positional,  ///< one positional argument
  rest,        ///< all remaining positional arguments
};

struct OptionSpec {
  std::vector<std::string> names;  ///< "-o", "--output"; a positional has its metavar only
  std::string metavar;
  std::string help;
  std::string group;         ///< heading in the help text
  std::string default_text;  ///< shown in the help text; empty: none
  std::vector<std::string> choices;
  Arity arity = Arity::one;
  bool is_required = false;
  bool is_hidden = false;  ///< an alias kept for people who know PEFT's field names
  std::function<void(const std::vector<std::string>&)> assign;

  /// The longest name, without dashes: the key in a settings file.
  std::string key() const;
  /// How messages call it: "--rank" or "ADAPTER".
  std::string label() const;
};

class OptionSet {
 public:
  /// Options added from here on stand under this heading.
  void group(std::string title) { group_ = std::move(title); }

  OptionSpec& flag(std::string_view names, bool& target, std::string help);
  /// `--name` sets true, `--no-name` sets false.
  void toggle(std::string_view name, bool& target, std::string help);
  OptionSpec& text(std::string_view names, std::string& target, std::string metavar,
                   std::string help);
  OptionSpec& text(std::string_view names, std::optional<std::string>& target, std::string metavar,
                   std::string help);
  /// `--name` sets `asked`, `--name=VALUE` sets the value too.
  OptionSpec& optional_text(std::string_view names, bool& asked, std::optional<std::string>& target,
                            std::string metavar, std::string help);
  OptionSpec& choice(std::string_view names, std::string& target, std::vector<std::string> choices,
                     std::string help);
  OptionSpec& choice(std::string_view names, std::optional<std::string>& target,
                     std::vector<std::string> choices, std::string help);
  OptionSpec& integer(std::string_view names, std::int64_t& target, std::int64_t minimum,
                      std::string help);
  OptionSpec& integer(std::string_view names, std::optional<std::int64_t>& target,
                      std::int64_t minimum, std::string help);
  OptionSpec& seed(std::string_view names, std::uint64_t& target, std::string help);
  OptionSpec& number(std::string_view names, double& target, double minimum, double maximum,
                     std::string help);
  OptionSpec& number(std::string_view names, std::optional<double>& target, double minimum,
                     double maximum, std::string help);
  /// "5GB", "512MB", "1000": bytes, powers of ten as transformers reads them; KiB/MiB/GiB of two.
  OptionSpec& size(std::string_view names, std::uint64_t& target, std::string help);
  /// Comma-separated; a value that starts with "re:" is one item.
  OptionSpec& list(std::string_view names, std::vector<std::string>& target, std::string metavar,
                   std::string help);
  OptionSpec& many(std::string_view names, std::vector<std::string>& target, std::string metavar,
                   std::string help);
  OptionSpec& each(std::string_view names, std::vector<std::string>& target, std::string metavar,
                   std::string help);
  OptionSpec& positional(std::string metavar, std::string& target, std::string help);
  OptionSpec& rest(std::string metavar, std::vector<std::string>& target, std::string help);

  const std::vector<OptionSpec>& specs() const { return specs_; }

 private:
  OptionSpec& add(std::string_view names, std::string metavar, std::string help, Arity arity,
                  std::function<void(const std::vector<std::string>&)> assign);

  std::string group_ = "Options";
  std::vector<OptionSpec> specs_;
};

/// Conversions with Error(usage); `label` names the flag in the message.
std::int64_t parse_integer(std::string_view label, const std::string& text, std::int64_t minimum);
double parse_number(std::string_view label, const std::string& text, double minimum,
                    double maximum);
std::uint64_t parse_size(std::string_view label, const std::string& text);

}  // namespace lora::cli
