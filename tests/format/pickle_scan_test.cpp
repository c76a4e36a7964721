#include "lora/format/pickle_scan.h"

#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace {

using Names = std::vector<std::string>;

PickleScan scan_of(std::string_view bytes) {
  const TempDir directory;
  write_file(directory / "x", bytes);
  return scan_pickle(directory / "x");
}

PickleScan golden(const std::string& name) {
  return scan_pickle(std::string(LORA_SOURCE_DIR) + "/tests/golden/torch/" + name);
}

}  // namespace

TEST_CASE("files of torch.save name tensor rebuilding and nothing else, in both forms") {
  for (const char* name : {"state_dict.pt", "legacy_state_dict.pt", "protocol4.pt"}) {
    const PickleScan scan = golden(name);
    REQUIRE(scan.is_pickle);
    REQUIRE(scan.foreign.empty());
    REQUIRE(scan.incomplete.empty());
    REQUIRE(scan.tensors.size() == 3);
  }
}

TEST_CASE("a hostile file's names are listed in the order of their use") {
  const PickleScan scan = golden("hostile.pt");
  REQUIRE(scan.foreign == Names{"posix.system", "argparse.Namespace"});
  REQUIRE(scan.tensors.size() == 3);
}

TEST_CASE("text protocols, instances and objects are walked like binary ones") {
  REQUIRE(scan_of("cos\nsystem\n(S'x'\ntR.").foreign == Names{"os.system"});
  REQUIRE(scan_of("(S'x'\nios\nsystem\n.").foreign == Names{"os.system"});
  REQUIRE(scan_of("(cos\nsystem\nS'x'\no.").foreign == Names{"os.system"});
}

TEST_CASE("names from the stack are followed through the memo, and said to be computed otherwise") {
  // The module's text is memoised, dropped, and fetched again.
  const std::string fetched =
      std::string("\x80\x04\x8c\x02os\x94") + "0h" + std::string(1, '\0') + "\x8c\x06system\x93)R.";
  REQUIRE(scan_of(fetched).foreign == Names{"os.system"});
  REQUIRE(scan_of("\x80\x04NN\x93)R.").foreign == Names{"(computed)"});
}

TEST_CASE("a second pickle behind the first is walked too") {
  REQUIRE(scan_of("\x80\x02N.\x80\x02"
                  "cos\nsystem\n)R.")
              .foreign == Names{"os.system"});
}

TEST_CASE("what ends too soon keeps the names seen, and other bytes are no pickle") {
  const PickleScan cut = scan_of(
      "\x80\x02"
      "cos\nsystem\nX\xff\xff\xff\x7f");
  REQUIRE(cut.foreign == Names{"os.system"});
  REQUIRE(cut.incomplete.find("ends in the middle") != std::string::npos);
  REQUIRE(!scan_of("").is_pickle);
  REQUIRE(!scan_of("hello, world").is_pickle);
  REQUIRE(!scan_pickle("/does/not/exist").is_pickle);
  REQUIRE(scan_of(std::string("PK\x03\x04") + "garbage").incomplete.size() > 0);
}
