// Words for people: answers on stdout, everything else on stderr, colour where it is wanted.
#pragma once

#include <string>
#include <string_view>

#include "cli/streams.h"
#include "lora/base/error.h"
#include "lora/ops/finding.h"

namespace lora::cli {

enum class Tone { plain, bold, dim, red, yellow, green, cyan };

class Console {
 public:
  struct Settings {
    bool json = false;   ///< stdout is kept for the one JSON document
    bool quiet = false;  ///< no notes
    std::string color = "auto";
  };
  Console(const Streams& streams, std::string verb);
  void configure(const Settings& settings);

  /// A line of the answer (dropped with --json: the document carries it).
  void line(std::string_view text = {});
  /// Text of the answer without a line end, flushed at once (streamed generation).
  void raw(std::string_view text);
  /// A line on stderr: what is being assumed or left out ("said aloud"). Dropped with --quiet.
  void note(std::string_view text);
  void warning(std::string_view text);
  void error(const Error& error);

  /// `text` in a tone, for stdout; unchanged without colour.
  std::string toned(Tone tone, std::string_view text) const;

  bool is_quiet() const { return settings_.quiet; }
  bool is_json() const { return settings_.json; }
  const std::string& verb() const { return verb_; }

 private:
  bool wants_color(bool is_terminal) const;
  void tagged(Tone tone, std::string_view tag, std::string_view text);

  const Streams& streams_;
  std::string verb_;
  Settings settings_;
  bool color_out_ = false;
  bool color_err_ = false;
};

/// Replaces control characters and invalid UTF-8, so that names from files cannot drive a terminal.
std::string printable(std::string_view text);

}  // namespace lora::cli
