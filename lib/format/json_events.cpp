#include "format/json_events.h"

#include <nlohmann/json.hpp>
#include <string>

#include "format/json_text.h"
#include "lora/base/error.h"

namespace lora {
namespace {

constexpr std::size_t kMaxDepth = 128;

class Forwarder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Forwarder(std::string_view context, JsonEvents& events) : context_(context), events_(events) {}

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return number(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return number(value); }
  bool string(string_t& value) override {
    events_.text(value);
    return true;
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override {
    deepen();
    events_.open_object();
    return true;
  }
  bool start_array(std::size_t) override {
    deepen();
    events_.open_array();
    return true;
  }
  bool key(string_t& name) override {
    events_.key(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    throw malformed("it is no JSON from byte " + std::to_string(position));
  }

 private:
  Error malformed(const std::string& what) const {
    return Error(ErrorKind::malformed, "cannot read " + std::string(context_) + ": " + what)
        .in_file(std::string(context_));
  }
  void deepen() {
    if (++depth_ > kMaxDepth) throw malformed("it is nested more than 128 levels deep");
  }
  bool close() {
    --depth_;
    events_.close();
    return true;
  }
  bool number(double value) {
    events_.number(value);
    return true;
  }
  bool other() {
    events_.other();
    return true;
  }

  std::string_view context_;
  JsonEvents& events_;
  std::size_t depth_ = 0;
};

}  // namespace

void scan_json(std::string_view text, std::string_view context, JsonEvents& events) {
  if (has_longer_token(text, kLongestTokenOfFile))
    throw Error(ErrorKind::malformed, "cannot read " + std::string(context) +
                                          ": it has a string or number of more than " +
                                          std::to_string(kLongestTokenOfFile) + " bytes")
        .in_file(std::string(context));
  Forwarder forwarder(context, events);
  nlohmann::json::sax_parse(text.begin(), text.end(), &forwarder);
}

}  // namespace lora
