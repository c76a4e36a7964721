#include "engine/border.h"

#include <new>
#include <stdexcept>
#include <vector>

#include "engine/engine_impl.h"
#include "support/torch_testing.h"

using namespace lora;
using namespace lora::engine;
using lora::testing::require_error;

TEST_CASE("errors of LibTorch become one line without a backtrace") {
  const auto fail = [] {
    behind_border("multiplying", Sinks{}, [] { at::ones({2, 3}).mm(at::ones({2, 3})); });
  };
  require_error(ErrorKind::internal, "LibTorch failed while multiplying: mat1 and mat2", fail);
  try {
    fail();
  } catch (const Error& error) {
    REQUIRE(error.message().find('\n') == std::string::npos);
  }
}

TEST_CASE("memory that could not be had is a resources error") {
  require_error(ErrorKind::resources, "out of memory while loading", [] {
    behind_border("loading", Sinks{}, [] { at::empty({1LL << 58}, at::kFloat); });
  });
  require_error(ErrorKind::resources, "out of memory while loading",
                [] { behind_border("loading", Sinks{}, [] { throw std::bad_alloc(); }); });
}

TEST_CASE("other exceptions become internal errors and lora's own pass unchanged") {
  require_error(ErrorKind::internal, "failed while training: index", [] {
    behind_border("training", Sinks{}, [] { throw std::out_of_range("index"); });
  });
  require_error(ErrorKind::usage, "asked wrongly", [] {
    behind_border("training", Sinks{}, [] { throw Error(ErrorKind::usage, "asked wrongly"); });
  });
}

TEST_CASE("warnings of LibTorch go to the log, never to the terminal") {
  struct Log final : LogSink {
    std::vector<std::string> lines;
    void log(LogLevel, std::string_view message) override { lines.emplace_back(message); }
  } log;
  Sinks sinks;
  sinks.log = &log;
  behind_border("training", sinks, [] { TORCH_WARN("something odd"); });
  REQUIRE(log.lines == std::vector<std::string>{"something odd"});
}

TEST_CASE("the engine says what it runs on") {
  const EngineInfo info = EngineImpl().info();
  REQUIRE(info.libtorch_version.starts_with("2."));
  REQUIRE_FALSE(info.cpu_capability.empty());
}

TEST_CASE("the engine refuses a model without a base") {
  EngineImpl engine;
  REQUIRE_THROWS_AS(engine.load_model({}), Error);
  REQUIRE_THROWS_AS(engine.train({}, {}, {}), Error);
}
