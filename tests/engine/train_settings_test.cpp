#include <cmath>

#include "engine/train/settings.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::engine;

namespace {

TrainOptions valid() {
  TrainOptions options;
  options.data = {"data.txt"};
  return options;
}

template <typename Change>
void refuses(const char* part, Change&& change) {
  TrainOptions options = valid();
  change(options);
  testing::require_error(ErrorKind::usage, part, [&] { check_settings(options); });
}

}  // namespace

TEST_CASE("settings no run can have are refused by flag") {
  check_settings(valid());
  refuses("--steps is 0", [](TrainOptions& o) { o.steps = 0; });
  refuses("--epochs is -1.0", [](TrainOptions& o) { o.epochs = -1; });
  refuses("both given", [](TrainOptions& o) { o.steps = 1, o.epochs = 1; });
  refuses("--batch-size", [](TrainOptions& o) { o.batch_size = 0; });
  refuses("--grad-accum", [](TrainOptions& o) { o.grad_accum = -1; });
  refuses("--seq-len", [](TrainOptions& o) { o.seq_len = 1; });
  refuses("--lr", [](TrainOptions& o) { o.lr = -1; });
  refuses("--lr is \"nan\"", [](TrainOptions& o) { o.lr = std::nan(""); });
  refuses("unknown schedule", [](TrainOptions& o) { o.schedule = "step"; });
  refuses("warm-up", [](TrainOptions& o) { o.warmup = -1; });
  refuses("--weight-decay", [](TrainOptions& o) { o.weight_decay = -1; });
  refuses("--max-grad-norm", [](TrainOptions& o) { o.max_grad_norm = -1; });
  refuses("--betas is [0.9,1.0]", [](TrainOptions& o) { o.beta2 = 1; });
  refuses("--eps", [](TrainOptions& o) { o.eps = 0; });
  refuses("--loss-on", [](TrainOptions& o) { o.loss_on = "prompt"; });
  refuses("--init", [](TrainOptions& o) { o.init = "corda"; });
  refuses("--keep", [](TrainOptions& o) { o.keep = 0; });
  refuses("--save-every", [](TrainOptions& o) { o.save_every = -1; });
  refuses("--early-stop needs", [](TrainOptions& o) { o.early_stop = 1; });
  refuses("--eval-every needs", [](TrainOptions& o) { o.eval_every = 1; });
  refuses("--label-smoothing is 1.0", [](TrainOptions& o) { o.label_smoothing = 1; });
  refuses("--z-loss", [](TrainOptions& o) { o.z_loss = -1; });
  refuses("packed rows are all about full",
          [](TrainOptions& o) { o.pack = o.group_by_length = true; });
  refuses("--no-shuffle", [](TrainOptions& o) { o.group_by_length = true, o.shuffle = false; });
  refuses("no training data", [](TrainOptions& o) { o.data.clear(); });
}

TEST_CASE("every setting comes back from run.json as it was") {
  TrainOptions options = valid();
  options.steps = 123;
  options.batch_size = 3;
  options.lr = 1e-5;
  options.beta1 = 0.7;
  options.seed = 18446744073709551615ULL;
  options.shuffle = false;
  options.schedule = "linear";
  options.compute = Compute::bf16;
  options.base_dtype = BaseDtype::int8;
  options.layer_checkpointing = true;
  options.pack = true;
  options.label_smoothing = 0.1;
  TrainRun run;
  run.config = settings_to_json(options);
  run.data = {{"data.txt", {}}};
  TrainOptions given;
  given.resume = true;
  const TrainOptions resumed = resumed_options(given, run);
  REQUIRE((settings_to_json(resumed) == run.config));
  REQUIRE(resumed.seed == options.seed);
  REQUIRE(resumed.compute == Compute::bf16);
  REQUIRE(resumed.data == options.data);
}

TEST_CASE("a run.json without a setting, or with one of another type, is malformed") {
  TrainRun run;
  run.config = settings_to_json(valid());
  run.config["lr"] = "fast";
  testing::require_error(ErrorKind::malformed, "config.lr", [&] { resumed_options({}, run); });
  run.config = settings_to_json(valid());
  run.config.erase("seed");
  testing::require_error(ErrorKind::malformed, "config.seed", [&] { resumed_options({}, run); });
  run.config = settings_to_json(valid());
  run.config["base_dtype"] = "int3";
  testing::require_error(ErrorKind::malformed, "config.base_dtype",
                         [&] { resumed_options({}, run); });
}

TEST_CASE("a run from before --base-dtype goes on with its base as it was") {
  TrainRun run;
  run.config = settings_to_json(valid());
  run.config.erase("base_dtype");
  TrainOptions given;
  given.base_dtype = BaseDtype::nf4;
  REQUIRE(resumed_options(given, run).base_dtype == BaseDtype::native);
}

TEST_CASE("a run of an earlier version has the defaults of the settings it does not know") {
  TrainRun run;
  run.config = settings_to_json(valid());
  for (const char* name : {"pack", "group_by_length", "label_smoothing", "z_loss"})
    run.config.erase(name);
  REQUIRE_FALSE(resumed_options(valid(), run).pack);
  TrainOptions given = valid();
  given.pack = true;
  REQUIRE_FALSE(resumed_options(given, run).pack);
  given.given = {"pack"};
  testing::require_error(ErrorKind::usage, "--pack true (the run has false)",
                         [&] { resumed_options(given, run); });
}
