#include "html/page.h"

#include "cli/console.h"

namespace lora::cli {
namespace {

// Both colour schemes are chosen by the reader's system; drawings take their colours from here.
constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ground: #fcfcfb; --ink: #1d1f21; --dim: #6a6f75;
  --line: #dcdedd; --a: #2b6cb0; --b: #c05621; --heat: #2b6cb0; --none: #ececea; }
@media (prefers-color-scheme: dark) { :root { --ground: #17191b; --ink: #e8e8e6; --dim: #9aa0a6;
  --line: #34383c; --a: #63a4e6; --b: #ed9a63; --heat: #63a4e6; --none: #24272a; } }
body { background: var(--ground); color: var(--ink); margin: 2rem auto; max-width: 68rem;
  padding: 0 1.5rem; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: .25rem; }
h2 { font-size: 1.1rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; border-bottom: 1px solid var(--line); }
th, td { padding: .15rem .8rem .15rem 0; white-space: nowrap; }
.right { text-align: right; }
figure { margin: 1rem 0; } figcaption { color: var(--dim); font-size: 13px; margin-bottom: .4rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 11px system-ui; }
svg .dim { fill: var(--dim); } svg .axis { stroke: var(--line); fill: none; }
svg .a { stroke: var(--a); fill: none; stroke-width: 1.5; }
svg .b { stroke: var(--b); fill: none; stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .band { fill: var(--a); fill-opacity: .18; } svg .bar { fill: var(--a); }
svg .cell { fill: var(--heat); } svg .none { fill: var(--none); }
)";

void add_cell(std::string& body, std::string_view tag, std::string_view text, bool is_right) {
  body.append("<").append(tag).append(is_right ? " class=\"right\">" : ">");
  body.append(escape_html(text)).append("</").append(tag).append(">");
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : printable(text)) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

HtmlPage::HtmlPage(std::string title) : title_(escape_html(title)) {}

void HtmlPage::heading(std::string_view text) { body_ += "<h2>" + escape_html(text) + "</h2>\n"; }

void HtmlPage::paragraph(std::string_view text) { body_ += "<p>" + escape_html(text) + "</p>\n"; }

void HtmlPage::facts(const std::vector<std::pair<std::string, std::string>>& facts) {
  body_ += "<dl>\n";
  for (const auto& [name, value] : facts)
    body_ += "<dt>" + escape_html(name) + "</dt><dd>" + escape_html(value) + "</dd>\n";
  body_ += "</dl>\n";
}

void HtmlPage::table(const std::vector<std::string>& header,
                     const std::vector<std::vector<std::string>>& rows,
                     const std::vector<bool>& right) {
  if (rows.empty()) return;
  const auto is_right = [&](std::size_t column) { return column < right.size() && right[column]; };
  body_ += "<div class=\"scroll\"><table>\n<thead><tr>";
  for (std::size_t i = 0; i < header.size(); ++i) add_cell(body_, "th", header[i], is_right(i));
  body_ += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows) {
    body_ += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) add_cell(body_, "td", row[i], is_right(i));
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table></div>\n";
}

void HtmlPage::figure(std::string_view caption, std::string_view svg) {
  figures(caption, {std::string(svg)});
}

void HtmlPage::figures(std::string_view caption, const std::vector<std::string>& svgs) {
  body_ += "<figure><figcaption>" + escape_html(caption) + "</figcaption><div class=\"row\">\n";
  for (const std::string& svg : svgs) body_ += svg + "\n";
  body_ += "</div></figure>\n";
}

std::string HtmlPage::finish() const {
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
         title_ + "</title>\n<style>" + std::string(kStyle) + "</style>\n</head>\n<body>\n<h1>" +
         title_ + "</h1>\n" + body_ + "</body>\n</html>\n";
}

}  // namespace lora::cli
