// The subset of TOML that a settings file needs: `key = value` lines, `[verb]` tables, comments;
// values are strings, numbers, booleans and arrays of these on one line.
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

#include "cli/parse.h"
#include "cli/suggest.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"

namespace lora::cli {
namespace {

// A flag for a line: a thousand lines are many.
constexpr std::size_t kLargestFile = std::size_t{1} << 20;

struct Setting {
  std::string table;
  std::string key;
  std::vector<std::string> values;
  bool is_boolean = false;
  std::size_t line = 0;
};

class SettingsReader {
 public:
  SettingsReader(std::string path, std::string_view text) : path_(std::move(path)), text_(text) {}

  std::vector<Setting> read() {
    std::vector<Setting> settings;
    std::string table;
    while (!text_.empty()) {
      ++line_;
      const auto end = text_.find('\n');
      rest_ = text_.substr(0, end);
      text_ = end == std::string_view::npos ? std::string_view() : text_.substr(end + 1);
      if (!rest_.empty() && rest_.back() == '\r') rest_.remove_suffix(1);
      skip_space();
      if (at_end()) continue;
      if (rest_.front() == '[') {
        rest_.remove_prefix(1);
        table = word();
        expect(']');
      } else {
        Setting setting{table, word(), {}, false, line_};
        expect('=');
        read_values(setting);
        settings.push_back(std::move(setting));
      }
      skip_space();
      if (!at_end()) throw fail("found \"" + std::string(rest_) + "\" after the value");
    }
    return settings;
  }

 private:
  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t'))
      rest_.remove_prefix(1);
  }
  bool at_end() const { return rest_.empty() || rest_.front() == '#'; }

  void expect(char c) {
    skip_space();
    if (rest_.empty() || rest_.front() != c)
      throw fail(std::string("expected '") + c + "', found \"" + std::string(rest_) + "\"");
    rest_.remove_prefix(1);
    skip_space();
  }

  std::string word() {
    skip_space();
    std::size_t length = 0;
    while (length < rest_.size() && (std::isalnum(static_cast<unsigned char>(rest_[length])) ||
                                     rest_[length] == '-' || rest_[length] == '_'))
      ++length;
    if (length == 0) throw fail("expected a name, found \"" + std::string(rest_) + "\"");
    std::string name(rest_.substr(0, length));
    for (char& c : name)
      if (c == '_') c = '-';
    rest_.remove_prefix(length);
    return name;
  }

  void read_values(Setting& setting) {
    if (rest_.empty()) throw fail("expected a value for " + setting.key);
    if (rest_.front() != '[') {
      setting.values.push_back(value(setting.is_boolean));
      return;
    }
    rest_.remove_prefix(1);
    skip_space();
    bool ignored = false;
    while (rest_.empty() || rest_.front() != ']') {
      setting.values.push_back(value(ignored));
      skip_space();
      if (!rest_.empty() && rest_.front() == ',') expect(',');
      if (rest_.empty()) throw fail("expected ']' at the end of the array");
    }
    rest_.remove_prefix(1);
  }

  std::string value(bool& is_boolean) {
    const char quote = rest_.empty() ? '\0' : rest_.front();
    if (quote == '"' || quote == '\'') {
      rest_.remove_prefix(1);
      std::string text;
      while (!rest_.empty() && rest_.front() != quote) {
        if (quote == '"' && rest_.front() == '\\' && rest_.size() > 1) {
          rest_.remove_prefix(1);
          const char escaped = rest_.front();
          text += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
        } else {
          text += rest_.front();
        }
        rest_.remove_prefix(1);
      }
      if (rest_.empty()) throw fail("a string is not closed");
      rest_.remove_prefix(1);
      return text;
    }
    std::size_t length = rest_.find_first_of(" \t,]#");
    if (length == std::string_view::npos) length = rest_.size();
    std::string text(rest_.substr(0, length));
    rest_.remove_prefix(length);
    is_boolean = text == "true" || text == "false";
    const char first = text.empty() ? '\0' : text.front();
    if (!is_boolean && first != '-' && first != '+' && first != '.' &&
        !std::isdigit(static_cast<unsigned char>(first)))
      throw fail("found " + text + ", expected a number, true, false or a quoted string");
    return text;
  }

  Error fail(const std::string& reason) const {
    return Error(ErrorKind::usage, "cannot read settings file " + path_ + ", line " +
                                       std::to_string(line_) + ": " + reason)
        .in_file(path_);
  }

  std::string path_;
  std::string_view text_;
  std::string_view rest_;
  std::size_t line_ = 0;
};

std::string joined(const std::vector<std::string>& values) {
  std::string text;
  for (const std::string& value : values) text += (text.empty() ? "" : ",") + value;
  return text;
}

}  // namespace

std::vector<std::string> settings_arguments(const std::string& path, const std::string& verb,
                                            const std::vector<std::string>& arguments,
                                            const OptionSet& options) {
  const auto file = MappedFile::open(path);
  const auto bytes = file->bytes();
  if (bytes.size() > kLargestFile)
    throw Error(ErrorKind::usage, "cannot read settings file " + path + ": found " +
                                      std::to_string(bytes.size()) + " bytes, expected at most " +
                                      std::to_string(kLargestFile))
        .in_file(path);
  SettingsReader reader(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  std::vector<std::string> added;
  for (const Setting& setting : reader.read()) {
    if (!setting.table.empty() && setting.table != verb) continue;
    const OptionSpec* found = nullptr;
    std::vector<std::string> keys;
    for (const OptionSpec& spec : options.specs()) {
      if (spec.arity == Arity::positional || spec.arity == Arity::rest) continue;
      keys.push_back(spec.key());
      for (const std::string& name : spec.names)
        if (name == "--" + setting.key) found = &spec;
    }
    if (found == nullptr) {
      Error error(ErrorKind::usage, "cannot read settings file " + path + ", line " +
                                        std::to_string(setting.line) + ": unknown key " +
                                        setting.key + " for lora " + verb);
      if (const auto close = closest(setting.key, keys))
        error.with_hint("did you mean " + *close + "?");
      throw error.in_file(path);
    }
    if (is_given(*found, arguments)) continue;
    if (found->arity == Arity::flag) {
      if (!setting.is_boolean)
        throw Error(ErrorKind::usage, "cannot read settings file " + path + ", line " +
                                          std::to_string(setting.line) + ": " + setting.key +
                                          " is a switch, expected true or false")
            .in_file(path);
      if (setting.values.back() == "true") added.push_back(found->label());
    } else if (found->arity == Arity::optional && setting.is_boolean) {
      if (setting.values.back() == "true") added.push_back(found->label());
    } else if (found->arity == Arity::each) {
      for (const std::string& value : setting.values) added.push_back(found->label() + "=" + value);
    } else if (found->arity == Arity::many) {
      added.push_back(found->label());
      added.insert(added.end(), setting.values.begin(), setting.values.end());
    } else {
      added.push_back(found->label() + "=" + joined(setting.values));
    }
  }
  return added;
}

}  // namespace lora::cli
