// Training in rows of several documents, and in batches of similar length.
#include "engine/run_comparison.h"
//
#include "engine/golden_case.h"
#include "engine/train/data_rows.h"
#include "lora/checkpoint/train_run.h"

using namespace lora;
using namespace lora::testing;

namespace {

// Documents of 2 to 12 tokens as a line each; of every third the first half has no loss.
void write_documents(const std::filesystem::path& path, int count) {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    std::string ids, labels;
    const int length = 2 + i * 5 % 11;
    for (int t = 0; t < length; ++t) {
      const std::string id = std::to_string(3 + (i * 7 + t * 3) % 20);
      ids += (t == 0 ? "" : ",") + id;
      labels += (t == 0 ? "" : ",") + (i % 3 == 0 && t < length / 2 ? "-100" : id);
    }
    lines += "{\"input_ids\": [" + ids + "], \"labels\": [" + labels + "]}\n";
  }
  write_file(path, lines);
}

struct RowsFixture {
  TempDir folder;
  GoldenCase golden;
  engine::TrainSurroundings surroundings;

  explicit RowsFixture(const std::string& name = "gpt2_plain") : golden(name) {
    write_documents(folder / "data.jsonl", 40);
    surroundings.make_model = engine::make_model;
  }

  TrainOptions options(const std::string& run) const {
    TrainOptions result;
    result.base_source = golden.base.path.string();
    result.base = &golden.base;
    result.data = {folder / "data.jsonl"};
    result.run_dir = folder / run;
    result.initial_adapter = &golden.adapter;
    result.adapter_config = &golden.adapter.config;
    result.seq_len = 16;
    result.batch_size = 2;
    result.steps = 8;
    result.lr = 0.01;
    result.save_every = 2;
    result.tool_version = "0";
    result.force = true;
    return result;
  }

  TrainReport train(const TrainOptions& options) const {
    return engine::run_training(options, surroundings, {}, {});
  }
};

}  // namespace

TEST_CASE("a packed run resumes to the bytes of an uninterrupted one") {
  const RowsFixture fixture;
  for (const bool packs : {true, false}) {
    TrainOptions straight = fixture.options("straight");
    straight.pack = packs;
    straight.group_by_length = !packs;
    straight.label_smoothing = 0.1;
    straight.z_loss = 1e-3;
    straight.steps = 40;  // several epochs
    straight.save_every = 10;
    straight.eval_data = straight.data;
    straight.eval_every = 15;
    const TrainReport whole = fixture.train(straight);
    REQUIRE(whole.packing.has_value() == packs);
    TrainOptions broken = straight;
    broken.run_dir = fixture.folder / "broken";
    for (const std::int64_t stop : {1, 19, 33}) {
      INFO("packs " << packs << ", stopped after step " << stop);
      CancelFlag cancel{false};
      Sinks sinks;
      sinks.cancel = &cancel;
      engine::run_training(
          broken, fixture.surroundings,
          [&](const TrainEvent& event) { cancel = event.step >= stop; }, sinks);
      TrainOptions rest = resuming(broken);
      rest.initial_adapter = nullptr;
      rest.pack = rest.group_by_length = false;
      rest.label_smoothing = rest.z_loss = 0;
      rest.force = false;
      REQUIRE(fixture.train(rest).last_loss == whole.last_loss);
      require_equal_results(straight.run_dir, broken.run_dir);
    }
    const TrainRun run = read_train_run(broken.run_dir);
    REQUIRE((*run.config.find("pack") == Json(packs)));
    REQUIRE((*run.config.find("group_by_length") == Json(!packs)));
  }
}

TEST_CASE("a packed step over all documents has the loss and the gradient of an unpacked one") {
  for (const std::string name : {"gpt2_plain", "llama_plain", "decoder_gemma2"}) {
    INFO(name);
    const RowsFixture fixture(name);
    TrainOptions apart = fixture.options("apart");
    apart.steps = 1;
    apart.batch_size = 40;
    fixture.train(apart);
    TrainOptions packed = fixture.options("packed");
    packed.steps = 1;
    packed.pack = true;
    TrainOptions plan = packed;
    plan.dry_run = true;
    const JsonObject described = fixture.train(plan).plan;
    packed.batch_size = described.find("rows")->as_int().value();
    REQUIRE(described.find("examples")->as_int() == 40);
    REQUIRE(described.find("fill")->as_double().value() > 0.9);
    const TrainReport report = fixture.train(packed);
    REQUIRE(report.packing->documents == 40);
    REQUIRE(report.packing->rows == packed.batch_size);
    REQUIRE(report.packing->row_tokens == 16);
    const auto line = [&](const char* run, const char* key) {
      return parse_json(comparable_metrics(fixture.folder / run).at(0), "line")
          .find(key)
          ->as_double()
          .value();
    };
    for (const char* key : {"loss", "grad_norm"})
      REQUIRE(std::abs(line("apart", key) - line("packed", key)) < 1e-5 * line("apart", key));
    REQUIRE(line("apart", "tokens") == line("packed", "tokens"));
  }
}

TEST_CASE("rows of several documents know their origins, and where documents begin") {
  Dataset data;
  data.append({{1, 2, 3}, {kNoLabel, 2, 3}, "d.jsonl:1"});
  data.append({{4, 5}, {4, 5}, "d.jsonl:2"});
  data.append({{6, 7, 8, 9}, {kNoLabel, kNoLabel, 8, 9}, "d.jsonl:3"});
  data.total_tokens = 9;
  const engine::DataRows rows(data, 5, 0, false);
  REQUIRE(rows.size() == 2);
  REQUIRE(rows.length(0) == 5);
  REQUIRE(rows.fill() == 0.9);
  const std::vector<std::size_t> both{0, 1};
  const engine::Batch batch = rows.batch(both);
  REQUIRE(batch.input_ids == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 0});
  REQUIRE(batch.labels == std::vector<std::int64_t>{-100, 2, 3, 4, 5, -100, -100, 8, 9, -100});
  REQUIRE(batch.starts == std::vector<std::int32_t>{0, 0, 0, 3, 3, 0, 0, 0, 0, 4});
  REQUIRE(batch.lengths == std::vector<std::int64_t>{5, 4});
  REQUIRE(engine::supervised_count(batch) == 2 + 1 + 2);
  REQUIRE(rows.origins_of(both) == "d.jsonl:1, d.jsonl:2, d.jsonl:3");
}

TEST_CASE("what cannot be packed, grouped or smoothed is refused with the reason") {
  const RowsFixture encoder("bert_language");
  TrainOptions options = encoder.options("run");
  options.pack = true;
  require_error(ErrorKind::usage, "predicts no next token", [&] { encoder.train(options); });

  const RowsFixture classifier("gpt2_classifier");
  write_file(classifier.folder / "data.jsonl", "{\"input_ids\": [3, 4], \"label\": 1}\n");
  options = classifier.options("run");
  options.pack = true;
  require_error(ErrorKind::usage, "one answer a row", [&] { classifier.train(options); });

  const TrainFixture table;
  const auto refuses = [&](const char* part, const auto& change) {
    TrainOptions of_table = table.options("run");
    change(of_table);
    require_error(ErrorKind::usage, part, [&] { table.train(of_table, fake_surroundings()); });
  };
  refuses("cannot pack", [](TrainOptions& o) { o.pack = true; });
  refuses("cannot group", [](TrainOptions& o) { o.group_by_length = true; });
  refuses("tokens or classes of text", [](TrainOptions& o) { o.label_smoothing = 0.1; });
  refuses("tokens or classes of text", [](TrainOptions& o) { o.z_loss = 0.1; });
}
