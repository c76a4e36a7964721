#include "cli/exit_codes.h"

namespace lora::cli {

int exit_code_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::usage:
      return kUsage;
    case ErrorKind::not_found:
    case ErrorKind::malformed:
    case ErrorKind::unsupported:
      return kBadInput;
    case ErrorKind::incompatible:
      return kIncompatible;
    case ErrorKind::output:
      return kOutput;
    case ErrorKind::resources:
      return kResources;
    case ErrorKind::interrupted:
      return kInterrupted;
    case ErrorKind::internal:
      return kInternal;
  }
  return kInternal;
}

}  // namespace lora::cli
