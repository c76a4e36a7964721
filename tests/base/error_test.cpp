#include "lora/base/error.h"

#include "lora/base/sinks.h"
#include "support/testing.h"

namespace lora {

TEST_CASE("an error carries its kind, file, tensor and hint") {
  const Error error =
      Error(ErrorKind::malformed, "message").in_file("f").in_tensor("t").with_hint("h");
  REQUIRE(error.kind() == ErrorKind::malformed);
  REQUIRE(std::string(error.what()) == "message");
  REQUIRE(error.file() == "f");
  REQUIRE(error.tensor() == "t");
  REQUIRE(error.hint() == "h");
}

TEST_CASE("error kinds have the names that JSON documents use") {
  REQUIRE(to_string(ErrorKind::not_found) == "not_found");
  REQUIRE(to_string(ErrorKind::output) == "output");
  REQUIRE(to_string(ErrorKind::interrupted) == "interrupted");
  REQUIRE(to_string(ErrorKind::internal) == "internal");
}

TEST_CASE("sinks may all be absent, and a set flag interrupts") {
  Sinks sinks;
  sinks.info("nobody listens");
  sinks.report(1, 2);
  sinks.throw_if_cancelled();
  CancelFlag flag{false};
  sinks.cancel = &flag;
  REQUIRE_FALSE(sinks.is_cancelled());
  flag = true;
  testing::require_error(ErrorKind::interrupted, "interrupted",
                         [&] { sinks.throw_if_cancelled(); });
}

}  // namespace lora
