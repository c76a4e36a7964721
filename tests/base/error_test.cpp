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

TEST_CASE("message and hint of an error stay on one line, whatever name they quote") {
  const Error error = Error(ErrorKind::malformed, "found 'a\nerror: b\x7f\x1b[2J\t'")
                          .with_hint("rename\r\nit")
                          .in_file("a\nb");
  REQUIRE(error.message() == "found 'a\\x0aerror: b\\x7f\\x1b[2J\\x09'");
  REQUIRE(error.hint() == "rename\\x0d\\x0ait");
  REQUIRE(error.file() == "a\nb");  // a path is to be opened
  REQUIRE(Error(ErrorKind::malformed, "caf\xc3\xa9").message() == "caf\xc3\xa9");
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
