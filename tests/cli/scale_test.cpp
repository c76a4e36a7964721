// scale, convert and the histories that inspect shows, through the command line.
#include "lora/format/safetensors.h"
#include "support/command_line.h"
#include "support/sample_adapter.h"

using namespace lora;
using namespace lora::testing;

namespace {

struct Folder : CommandFolder {
  Folder() {
    const Checkpoint base = sample_base(directory / "base");
    write_sample(directory / "a", sample_config(), sample_tensors(1), &base);
    AdapterConfig config = sample_config();
    config.init_lora_weights = "pissa";
    config.rank = 2;
    TensorMap tensors;
    for (const auto& [key, tensor] : sample_tensors(1)) {
      std::vector<std::int64_t> shape = tensor.shape;
      shape[key.find("lora_A") != std::string::npos ? 0 : 1] = 2;
      tensors[key] = normal_tensor(key, shape, 0.1);
    }
    write_sample(directory / "pissa", config, tensors, &base);
    for (auto& [key, tensor] : tensors) tensor = normal_tensor(key, tensor.shape, 0.1, 2);
    write_sample(directory / "start", config, tensors);
  }
  int code(const std::vector<std::string>& arguments) const {
    return lora::testing::lora(arguments).code;
  }
};

}  // namespace

TEST_CASE("scale says both scalings, and whether folding was exact") {
  Folder folder;
  const CommandResult weaker =
      lora_ok({"scale", folder.path("a"), "--mul", "0.5", "-o", folder.path("weaker")});
  REQUIRE(contains(weaker.out, "new scaling"));
  const CommandResult folded =
      lora_ok({"scale", folder.path("a"), "--fold", "-o", folder.path("folded")});
  REQUIRE(contains(folded.out, "every product was exact"));
  CommandResult json = lora_ok(
      {"scale", folder.path("a"), "--unfold", "3", "-o", folder.path("u"), "--json", "--dry-run"});
  REQUIRE(json.result().find("rounding")->as_double().value() > 0);
  REQUIRE(json.result().find("modules")->as_array()->at(0).find("scaling")->as_double() == 3.0);
  REQUIRE(!std::filesystem::exists(folder.path("u")));
  REQUIRE(contains(lora_ok({"verify", folder.path("folded"), "--base", folder.path("base")}).out,
                   "proven"));
}

TEST_CASE("scale and convert refuse with the exit code of the reason") {
  Folder folder;
  REQUIRE(folder.code({"scale", folder.path("a"), "-o", folder.path("x")}) == 2);
  REQUIRE(folder.code({"scale", folder.path("a"), "--mul", "nan", "-o", folder.path("x")}) == 2);
  REQUIRE(folder.code({"scale", folder.path("a"), "--unfold", "0", "-o", folder.path("x")}) == 2);
  REQUIRE(folder.code({"scale", folder.path("pissa"), "--fold", "-o", folder.path("x")}) == 3);
  REQUIRE(folder.code({"scale", folder.path("a"), "--fold", "-o", folder.path("a"), "-f"}) == 2);
  REQUIRE(folder.code({"convert", folder.path("pissa"), "-o", folder.path("x")}) == 2);
  REQUIRE(folder.code({"convert", folder.path("a"), "--base", folder.path("base"), "-o",
                       folder.path("x")}) == 3);
  REQUIRE(folder.code({"convert", folder.path("pissa"), "--init-adapter", folder.path("a"), "-o",
                       folder.path("x")}) == 4);
  sample_base(folder.directory / "other", 1);
  REQUIRE(folder.code({"convert", folder.path("pissa"), "--base", folder.path("other"), "-o",
                       folder.path("x")}) == 4);
  lora_ok({"convert", folder.path("pissa"), "--base", folder.path("other"), "--any-base", "-o",
           folder.path("x")});
}

TEST_CASE("convert makes a plain adapter, and inspect shows the history of what follows") {
  Folder folder;
  const CommandResult plain = lora_ok({"convert", folder.path("pissa"), "--init-adapter",
                                       folder.path("start"), "-o", folder.path("plain")});
  REQUIRE(contains(plain.out, "pissa in 2 modules: twice the rank"));
  lora_ok({"resize", folder.path("plain"), "--rank", "2", "-o", folder.path("small")});
  lora_ok({"scale", folder.path("small"), "--mul", "2", "-o", folder.path("strong")});
  const CommandResult shown = lora_ok({"inspect", folder.path("strong"), "--scale"});
  REQUIRE(contains(shown.out, "1. convert  init pissa; from adapter "));
  REQUIRE(contains(shown.out, " and initial "));
  REQUIRE(contains(shown.out, "2. resize  rank 2; from adapter "));
  REQUIRE(contains(shown.out, "3. scale  mul 2.0; from adapter "));
  REQUIRE(contains(shown.out, "alpha / rank"));
  REQUIRE(contains(lora_ok({"verify", folder.path("strong"), "--base", folder.path("base")}).out,
                   "proven"));
  CommandResult json = lora_ok({"inspect", folder.path("strong"), "--json"});
  const Json& file = json.result().find("files")->as_array()->at(0);
  REQUIRE(file.find("history")->as_array()->size() == 3);
  REQUIRE(file.find("scales")->is_null());
}

TEST_CASE("inspect shows of what a merged checkpoint was made, and that it changed since") {
  Folder folder;
  lora_ok({"merge", folder.path("a") + "@0.5", "--base", folder.path("base"), "-o",
           folder.path("merged")});
  const CommandResult shown = lora_ok({"inspect", folder.path("merged")});
  REQUIRE(contains(shown.out, "1. merge  compat merge; from base "));
  REQUIRE(contains(shown.out, " times 0.5"));
  REQUIRE(!contains(shown.out, "changed after the merge"));
  std::string record = read_file(folder.directory / "merged" / "lora_merge.json");
  const std::size_t at = record.find("\"root\"") + 9;
  record[at + 1] = record[at + 1] == 'a' ? 'b' : 'a';
  write_file(folder.directory / "merged" / "lora_merge.json", record);
  REQUIRE(contains(lora_ok({"inspect", folder.path("merged")}).out, "changed after the merge"));
}
