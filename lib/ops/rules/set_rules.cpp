#include <algorithm>
#include <system_error>

#include "lora/base/error.h"
#include "lora/ops/adapter_index.h"
#include "lora/ops/adapter_set.h"
#include "ops/rules/rule.h"

namespace lora::rules {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

constexpr std::size_t kMostNeighbours = 32;
constexpr std::size_t kShownOfRun = 3;

// PEFT saves the adapters of one model into sub-directories of one directory.
std::vector<fs::path> neighbours(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code failed;
  for (fs::directory_iterator it(directory, failed), end; !failed && it != end;
       it.increment(failed)) {
    std::error_code ignored;
    const bool is_step = it->path().filename().string().starts_with("checkpoint");
    if (!is_step && !it->is_symlink(ignored) && is_adapter_directory(it->path()))
      found.push_back(it->path());
  }
  std::sort(found.begin(), found.end());
  if (found.size() > kMostNeighbours) found.resize(kMostNeighbours);
  return found;
}

bool may_hold_copies(const Adapter& adapter) {
  return std::any_of(adapter.replacements.begin(), adapter.replacements.end(),
                     [&](const auto& entry) { return is_base_copy(adapter, entry.first); });
}

// Whether the base may say that what looks like a conflict is its own in an adapter.
bool is_up_to_base(const Subject& subject, const Adapter& other) {
  return subject.base != nullptr && (may_hold_copies(subject.adapter) || may_hold_copies(other));
}

Names conflicts_of(const Subject& subject, const Adapter& other) {
  if (!is_up_to_base(subject, other)) return conflicts_between(subject.adapter, other);
  Adapter own = subject.adapter, neighbour = other;
  for (Adapter* adapter : {&own, &neighbour}) drop_base_copies(*adapter, *subject.base);
  return conflicts_between(own, neighbour);
}

void compare_with_neighbours(const Subject& subject, const std::vector<fs::path>& others,
                             Report& report) {
  for (const fs::path& other : others) {
    try {
      if (const Names found = conflicts_of(subject, open_adapter(other)); !found.empty())
        report.add("cannot be loaded together with " + other.filename().string() + ": they " +
                   report.list(found));
    } catch (const Error&) {
      // What is wrong with the other one is for its own run.
    }
  }
}

// One finding however many there are: a run may hold hundreds of adapters that have nothing to do
// with each other.
void compare_with_run(const Subject& subject, const std::vector<fs::path>& known, Report& report) {
  if (subject.companions == nullptr) return;
  const StatedBase base = stated_base(subject.adapter, subject.manifest);
  Names conflicts;
  for (const AdapterIndex::Entry* other : subject.companions->conflicting(subject.adapter)) {
    const fs::path& path = other->adapter.path;
    const bool is_compared = std::find(known.begin(), known.end(), path) != known.end();
    const bool is_unrelated = subject.base == nullptr && is_other_base(base, other->base);
    if (is_compared || is_unrelated) continue;
    const bool is_shown = conflicts.size() < kShownOfRun;
    std::string conflict = path.string();
    if (is_shown || is_up_to_base(subject, other->adapter)) {
      const Names found = conflicts_of(subject, other->adapter);
      if (found.empty()) continue;
      if (is_shown) conflict += " (they " + report.list(found) + ")";
    }
    conflicts.push_back(std::move(conflict));
  }
  if (!conflicts.empty())
    report.add("cannot be loaded together with " + report.list(conflicts, kShownOfRun));
}

void set_conflict(const Subject& subject, Report& report) {
  const fs::path& path = subject.adapter.path;
  std::error_code ignored;
  const std::vector<fs::path> others =
      fs::is_directory(path, ignored) ? neighbours(path) : std::vector<fs::path>();
  compare_with_neighbours(subject, others, report);
  compare_with_run(subject, others, report);
}

}  // namespace

const std::vector<Rule>& set_rules() {
  static const std::vector<Rule> rules{
      {{"LV318", "adapter-set-conflict", Severity::note,
        "adapters in sub-directories, where PEFT saves those of one model, and the other adapters "
        "of one run that are for the same base",
        "These adapters cannot be loaded together; loading them so is an error.",
        "load one of them, or merge one into the base first"},
       set_conflict},
  };
  return rules;
}

}  // namespace lora::rules
