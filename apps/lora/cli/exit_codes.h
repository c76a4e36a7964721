// Exit codes: one array feeds the program, `lora help exit-codes` and the tests.
#pragma once

#include <array>
#include <string_view>

#include "lora/base/error.h"

namespace lora::cli {

inline constexpr int kDone = 0;
inline constexpr int kAnswerIsNo = 1;
inline constexpr int kUsage = 2;
inline constexpr int kBadInput = 3;
inline constexpr int kIncompatible = 4;
inline constexpr int kOutput = 5;
inline constexpr int kResources = 6;
inline constexpr int kInconclusive = 7;
inline constexpr int kInternal = 70;
inline constexpr int kInterrupted = 130;

struct ExitCode {
  int code;
  std::string_view meaning;
};

inline constexpr std::array<ExitCode, 11> kExitCodes{{
    {kDone, "done, nothing found wrong"},
    {kAnswerIsNo, "it worked and the answer is no: verify has errors, diff found differences"},
    {kUsage, "usage: unknown verb, flag or value, missing argument"},
    {kBadInput, "input missing, unreadable, malformed, truncated or unsupported"},
    {kIncompatible, "inputs do not fit together: adapter and base, adapters among themselves"},
    {kOutput, "output exists without --force, disk full, rename failed"},
    {kResources, "resources: out of memory, engine or device not available"},
    {kInconclusive, "inconclusive: the check asked for could not be made (only verify)"},
    {kInternal, "internal error: a bug in lora"},
    {kInterrupted, "interrupted; nothing half-written left"},
    {143, "terminated; nothing half-written left"},
}};

int exit_code_of(ErrorKind kind);

}  // namespace lora::cli
