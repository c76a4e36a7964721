#include "ops/repair_name_steps.h"

namespace lora {

NameSteps::NameSteps(const RepairOptions& options, const AdapterConfig* config,
                     RepairReport& report)
    : options_(options), config_(config), report_(report) {
  if (options.base) modules_ = list_modules(*options.base);
  for (const ModuleInfo& info : modules_) paths_.insert(info.module_path);
}

void NameSteps::add(const std::string& from, const std::string& to, const std::string& why) {
  report_.changes.push_back({"names", from, to, why});
}

void NameSteps::refuse(ErrorKind kind, const std::string& what, const std::string& hint) const {
  const std::string source = options_.adapter.string();
  throw Error(kind, "cannot repair " + source + ": " + what).in_file(source).with_hint(hint);
}

std::string count_of_names(std::size_t count) {
  return std::to_string(count) + (count == 1 ? " name" : " names");
}

}  // namespace lora
