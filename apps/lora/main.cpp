#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "cli/run.h"

namespace {

lora::CancelFlag cancel_requested{false};
volatile std::sig_atomic_t last_signal = 0;

// First signal: ask the operation to stop cleanly. Second: the default, immediate end.
extern "C" void on_signal(int signal) {
  last_signal = signal;
  cancel_requested.store(true);
  std::signal(signal, SIG_DFL);
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error of the write
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  lora::cli::Streams streams{std::cout, std::cerr};
  streams.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  streams.err_is_terminal = ::isatty(STDERR_FILENO) == 1;
  streams.cancel = &cancel_requested;
  streams.environment = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  const int code =
      lora::cli::run(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc), streams);
  return last_signal == SIGTERM && code == lora::cli::kInterrupted ? 128 + SIGTERM : code;
}
