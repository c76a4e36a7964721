#include "html/page.h"

#include <cmath>
#include <limits>

#include "html/plots.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("names from files cannot leave the text of a page") {
  REQUIRE(cli::escape_html("<script>\"'&") == "&lt;script&gt;&quot;&#39;&amp;");
  cli::HtmlPage page("</title><script>");
  page.table({"name"}, {{"<img src=x>"}}, {});
  const std::string text = page.finish();
  REQUIRE(count_of(text, "<script") == 0);
  REQUIRE(count_of(text, "<img") == 0);
  REQUIRE(contains(text, "&lt;img src=x&gt;"));
}

TEST_CASE("a heat map has a cell for each value, and says where there is none") {
  const double none = std::numeric_limits<double>::quiet_NaN();
  const std::string map = cli::heat_map({"0", "1"}, {"q", "v"}, {1, 2, none, 4});
  REQUIRE(count_of(map, "class=\"cell\"") == 3);
  REQUIRE(count_of(map, "class=\"none\"") == 1);
  REQUIRE(contains(map, "<title>1 v: 4</title>"));
  REQUIRE(contains(map, "fill-opacity=\"1.000\""));
}

TEST_CASE("curves end where a logarithm does, and a histogram counts every finite value") {
  const std::string plot = cli::curve_plot("spectrum", {{"A", {4, 2, 0, 1}, false}});
  REQUIRE(contains(plot, "class=\"a\""));
  REQUIRE(count_of(plot, " L") == 1);
  const std::string bars = cli::histogram("values", {1, 1, 2, HUGE_VAL}, 2);
  REQUIRE(contains(bars, "from 1: 2"));
  REQUIRE(contains(bars, "from 1.5: 1"));
  REQUIRE(contains(cli::histogram("one value", {3, 3, 3}), "3: 3"));
}

TEST_CASE("a summary of curves has their mean and range at every index") {
  const std::vector<double> first{4, 2};
  const std::vector<double> second{2};
  const cli::CurveSummary summary = cli::summary_of({&first, &second});
  REQUIRE(summary.mean == std::vector<double>{3, 2});
  REQUIRE(summary.low == std::vector<double>{2, 2});
  REQUIRE(summary.high == std::vector<double>{4, 2});
}

TEST_CASE("inspect and diff write pages, and never over an existing one unasked") {
  TempDir folder;
  write_sample(folder / "a", sample_config(), sample_tensors(1));
  write_sample(folder / "b", sample_config(), sample_tensors(2));
  const std::string a = (folder / "a").string();
  const std::string b = (folder / "b").string();
  const std::string page = (folder / "page.html").string();
  lora_ok({"inspect", a, "--html", page});
  const std::string inspected = read_file(page);
  REQUIRE(count_of(inspected, "class=\"cell\"") == 4);
  REQUIRE(contains(inspected, "fc1"));
  REQUIRE(lora::testing::lora({"diff", a, b, "--html", page}).code == 5);
  REQUIRE(read_file(page) == inspected);
  REQUIRE(lora::testing::lora({"diff", a, b, "--html", page, "--force"}).code == 1);
  const std::string compared = read_file(page);
  REQUIRE(contains(compared, "Cosine of the two updates"));
  for (const char* outside : {"<script", "src=", "href=", "url("})
    REQUIRE(!contains(compared, outside));
  REQUIRE(lora::testing::lora({"inspect", a, b, "--html", page}).code == 2);
}
