#include <algorithm>
#include <array>

#include "lora/format/pickle_scan.h"
#include "ops/rules/folder_rules.h"

namespace lora::rules {
namespace {

constexpr std::size_t kListed = 100;

constexpr auto kPickleEndings =
    std::to_array<std::string_view>({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"});

// Modules whose functions run code, start programs or reach files and the network. Training states
// (training_args.bin, rng_state.pth) name classes of their trainer and none of these.
constexpr auto kActiveModules =
    std::to_array<std::string_view>({"os",         "posix",     "nt",          "subprocess",
                                     "commands",   "pty",       "sys",         "runpy",
                                     "code",       "importlib", "imp",         "pkgutil",
                                     "socket",     "shutil",    "ctypes",      "marshal",
                                     "pickle",     "_pickle",   "dill",        "cloudpickle",
                                     "webbrowser", "urllib",    "http",        "requests",
                                     "ftplib",     "smtplib",   "asyncio",     "multiprocessing",
                                     "threading",  "signal",    "platform",    "pip",
                                     "timeit",     "pdb",       "bdb",         "cProfile",
                                     "profile",    "trace",     "doctest",     "inspect",
                                     "gc",         "builtins",  "__builtin__", "operator",
                                     "functools",  "types",     "nturl2path",  "tempfile",
                                     "pathlib"});

bool is_active(const std::string& global) {
  const std::string_view top = std::string_view(global).substr(0, global.find('.'));
  if (top == "torch") return global.starts_with("torch.hub.") || global == "torch.load";
  return std::find(kActiveModules.begin(), kActiveModules.end(), top) != kActiveModules.end() ||
         top.starts_with("(");
}

bool is_weights(const std::filesystem::path& relative) {
  const std::string name = relative.filename().string();
  return name.starts_with("adapter_model") || name.starts_with("pytorch_model");
}

}  // namespace

void check_pickles(const Folder& folder, Report& report) {
  for (const Folder::Entry& entry : folder.entries) {
    const bool has_ending = std::find(kPickleEndings.begin(), kPickleEndings.end(),
                                      entry.path.extension().string()) != kPickleEndings.end();
    if (!entry.is_file || !(has_ending || folder.is_single_file)) continue;
    const PickleScan scan = scan_pickle(entry.path);
    if (!scan.is_pickle) continue;
    const bool runs_code = std::any_of(scan.foreign.begin(), scan.foreign.end(), is_active);
    const bool is_error = runs_code || (!scan.foreign.empty() &&
                                        (is_weights(entry.relative) || folder.is_single_file));
    std::string message = entry.relative.string();
    if (scan.foreign.empty()) {
      message += " refers to " + std::to_string(scan.tensors.size()) +
                 " names, all of tensor rebuilding: " + report.list(scan.tensors, kListed);
    } else {
      message += " would make Python call " + report.list(scan.foreign, kListed) +
                 (scan.tensors.empty() ? ""
                                       : ", besides " + std::to_string(scan.tensors.size()) +
                                             " names of tensor rebuilding");
    }
    if (!scan.incomplete.empty()) message += "; the list may be incomplete: " + scan.incomplete;
    report.add(std::move(message),
               {.tensor = {},
                .module = {},
                .hint = is_error ? "" : "nothing to do as long as it is not unpickled",
                .severity = is_error ? Severity::error : Severity::note,
                .file = entry.path.string()});
  }
}

}  // namespace lora::rules
