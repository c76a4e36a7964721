// One self-contained HTML page: no script, no font, no address of anything outside.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lora::cli {

/// Text as it may stand between tags and in quoted attributes; control characters and bytes that
/// are no UTF-8 are made visible.
std::string escape_html(std::string_view text);

class HtmlPage {
 public:
  explicit HtmlPage(std::string title);

  void heading(std::string_view text);
  void paragraph(std::string_view text);
  /// Name and value side by side, the page's key figures.
  void facts(const std::vector<std::pair<std::string, std::string>>& facts);
  /// Columns named in `right` are right-aligned. No rows: nothing is written.
  void table(const std::vector<std::string>& header,
             const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right);
  /// A drawing (lora::cli plots give it) under its caption.
  void figure(std::string_view caption, std::string_view svg);
  /// Several small drawings side by side under one caption.
  void figures(std::string_view caption, const std::vector<std::string>& svgs);

  /// The whole document.
  std::string finish() const;

 private:
  std::string title_;
  std::string body_;
};

}  // namespace lora::cli
