#include "lora/ops/repair.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>

#include "lora/adapter/manifest.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/base/tensor_digest.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/statistics.h"
#include "lora/ops/verify.h"
#include "ops/cast_tensors.h"
#include "ops/repair_config.h"
#include "ops/repair_names.h"
#include "ops/repair_source.h"
#include "ops/rules/rule.h"
#include "ops/saved_embeddings.h"

namespace lora {
namespace {

namespace fs = std::filesystem;

class Repair {
 public:
  explicit Repair(const RepairOptions& options)
      : options_(options), name_(options.adapter.string()) {}

  RepairReport run() {
    report_.output = options_.output;
    if (!options_.dry_run) require_absent(options_.output, options_.write.force, true);
    source_ = read_repair_source(options_.adapter, report_);
    const RepairConfig read = read_repair_config(options_, source_, report_);
    names_ =
        repair_names(source_.tensors, options_, read.config ? &*read.config : nullptr, report_);
    drop_copies_of_base(read.config ? &*read.config : nullptr);
    require_whole();
    AdapterConfig config = repair_config(read, names_, source_.manifest, options_, report_);
    if (const auto conflict = find_conflict(config))
      refuse(ErrorKind::usage, *conflict, "give a whole configuration with --adapter-config FILE");
    compare_with_record();
    cast();
    report_.adapter = make_adapter(std::move(config), names_.tensors, options_.adapter);
    require_accounted();
    for (const auto& [key, tensor] : names_.tensors) report_.bytes += tensor.bytes.size();
    stage();
    return std::move(report_);
  }

 private:
  [[noreturn]] void refuse(ErrorKind kind, const std::string& what, const std::string& hint) const {
    throw Error(kind, "cannot repair " + name_ + ": " + what).in_file(name_).with_hint(hint);
  }

  void drop(const std::string& key, const std::string& why) {
    report_.changes.push_back({"tensor", key, "left out", why});
    names_.tensors.erase(key);
  }

  // Weights of the base in the file weigh it down or, where nobody declared them, overwrite the
  // base. Those that equal the base bit for bit change nothing by going.
  void drop_copies_of_base(const AdapterConfig* config) {
    if (options_.base == nullptr) return;
    std::vector<std::string> copies;
    for (const auto& [peft_key, tensor] : names_.tensors) {
      const ParsedKey key = parse_key(peft_key);
      if (key.role != KeyRole::saved && key.role != KeyRole::base_layer) continue;
      if (config != nullptr && is_declared(key, *config)) continue;
      const Tensor* original = options_.base->find(to_base_name(key));
      if (original != nullptr && has_equal_bytes(*original, tensor)) copies.push_back(peft_key);
    }
    for (const std::string& key : copies) drop(key, "the base holds the same, bit for bit");
  }

  // PEFT expects these in the file, or writes them there, whatever their values.
  static bool is_declared(const ParsedKey& key, const AdapterConfig& config) {
    if (key.parameter == "bias" && config.bias != BiasMode::none) return true;
    if (key.parameter == "weight" && has_embedding_name(key.module_path) &&
        saves_embeddings(config))
      return true;
    if (key.role != KeyRole::saved) return false;
    for (std::size_t end = key.module_path.size(); end != std::string::npos && end != 0;
         end = key.module_path.rfind('.', end - 1)) {
      const std::string_view path = std::string_view(key.module_path).substr(0, end);
      if (std::any_of(config.modules_to_save.begin(), config.modules_to_save.end(),
                      [&](const std::string& entry) { return path.ends_with(entry); }))
        return true;
    }
    return false;
  }

  // What no repair can bring back, all of it at once.
  void require_whole() const {
    std::vector<std::string> empty, broken;
    std::vector<const TensorMap::value_type*> floats;
    for (const auto& entry : names_.tensors) {
      if (entry.second.numel() == 0)
        empty.push_back(entry.first);
      else if (is_float(entry.second.dtype))
        floats.push_back(&entry);
    }
    std::vector<std::int64_t> bad(floats.size(), -1);
    parallel_for(floats.size(), options_.threads, [&](std::size_t i) {
      bad[i] = statistics_of(floats[i]->second).first_non_finite;
    });
    for (std::size_t i = 0; i < floats.size(); ++i)
      if (bad[i] >= 0) broken.push_back(floats[i]->first + " at element " + std::to_string(bad[i]));
    if (!empty.empty())
      refuse(ErrorKind::malformed,
             std::to_string(empty.size()) +
                 " tensors hold no elements, their values are lost: " + rules::join_some(empty),
             "gather the parameters before saving, or run lora save on a consolidated checkpoint");
    if (!broken.empty())
      refuse(ErrorKind::malformed,
             std::to_string(broken.size()) + " tensors are not finite: " + rules::join_some(broken),
             "training diverged or the file was damaged: take an earlier checkpoint");
  }

  void require_accounted() const {
    std::vector<std::string> lost, undeclared;
    for (const KeyProblem& problem : report_.adapter.problems) {
      const bool is_unknown = problem.kind == KeyProblem::Kind::unknown;
      (is_unknown ? undeclared : lost).push_back(problem.key + " " + problem.message);
    }
    if (!lost.empty())
      refuse(ErrorKind::malformed, rules::join_some(lost),
             "restore the file from the checkpoint it was saved from, or save again with lora "
             "save");
    if (!undeclared.empty())
      refuse(ErrorKind::malformed,
             "the file would overwrite weights of the base that nobody declared: " +
                 rules::join_some(undeclared),
             options_.base ? "if they are meant, declare them in modules_to_save: --adapter-config "
                             "FILE; a whole model is for lora save"
                           : "--base DIR drops what equals the base; a whole model is for lora "
                             "save");
  }

  // The record of an earlier lora speaks of these very bytes, or something replaced them.
  void compare_with_record() const {
    if (!source_.manifest) return;
    std::vector<std::string> different;
    for (const auto& [key, tensor] : names_.tensors) {
      const std::string& earlier = names_.earlier_key(key);
      const auto record = source_.manifest->tensors.find(earlier);
      if (record != source_.manifest->tensors.end() &&
          record->second.digest != tensor_digest(earlier, tensor))
        different.push_back(key);
    }
    if (!different.empty())
      refuse(ErrorKind::malformed,
             std::to_string(different.size()) + " tensors are not those that " + kManifestName +
                 " records: " + rules::join_some(different),
             "restore the recorded file; if the new values are meant, remove the manifest first");
  }

  void cast() {
    if (!options_.dtype) return;
    CastTensors cast = cast_tensors(names_.tensors, *options_.dtype, options_.threads);
    is_cast_ = cast.converted != 0;
    if (!is_cast_) return;
    std::set<std::string> found;
    for (const auto& [key, tensor] : names_.tensors)
      if (is_float(tensor.dtype) && tensor.dtype != *options_.dtype)
        found.emplace(to_string(tensor.dtype));
    report_.changes.push_back({"dtype",
                               rules::join_some({found.begin(), found.end()}) + " in " +
                                   std::to_string(cast.converted) + " tensors",
                               std::string(to_string(*options_.dtype)), "--dtype says so"});
    if (cast.vanished != 0)
      report_.notes.push_back(std::to_string(cast.vanished) + " values are too small for " +
                              std::string(to_string(*options_.dtype)) + " and became zero");
    names_.tensors = std::move(cast.tensors);
  }

  Manifest next_manifest() {
    Manifest manifest = make_manifest(report_.adapter, options_.threads);
    manifest.history = source_.manifest->history;
    JsonArray kinds;
    for (const RepairChange& change : report_.changes)
      if (kinds.empty() || !(kinds.back() == Json(change.what))) kinds.emplace_back(change.what);
    manifest.history.push_back(JsonObject{{"operation", "repair"}, {"changes", std::move(kinds)}});
    if (names_.is_moved) {
      if (source_.manifest->base_root)
        report_.notes.push_back(
            "the recorded identity of the base is left out: that base has "
            "other module names");
    } else {
      manifest.base_root = source_.manifest->base_root;
      manifest.base_tensors = source_.manifest->base_tensors;
    }
    return manifest;
  }

  bool keeps(const std::string& companion) {
    // Recorded outputs belong to these values on that base.
    if (companion != kProbeName || (!is_cast_ && !names_.is_moved)) return true;
    report_.left_behind.push_back(companion);
    return false;
  }

  void stage() {
    // What is never renamed to its place replaces nothing there.
    WriteOptions write = options_.write;
    write.force = write.force || options_.dry_run;
    AtomicDirectory directory(options_.output, write);
    write_adapter(directory, report_.adapter.config, names_.tensors);
    if (source_.manifest && !report_.changes.empty()) {
      write_manifest(directory, next_manifest());
    } else if (source_.manifest) {
      write_manifest(directory, *source_.manifest);
    }
    for (const std::string& name : source_.companions) {
      if (!keeps(name)) continue;
      std::ifstream in(source_.folder / name, std::ios::binary);
      directory.write(name, std::string(std::istreambuf_iterator<char>(in), {}));
      report_.carried.push_back(name);
    }
    require_verified(directory.staging_path());
    if (options_.dry_run || (report_.changes.empty() && !options_.write_unchanged)) return;
    directory.commit();
    report_.is_written = true;
  }

  void require_verified(const fs::path& staged) {
    VerifyOptions verify_options;
    verify_options.adapter = staged;
    verify_options.base = options_.base;
    verify_options.threads = options_.threads;
    verify_options.sinks = options_.sinks;
    VerifyReport verified = verify(verify_options);
    std::vector<std::string> errors;
    std::string hint;
    bool is_about_base = options_.base != nullptr;
    for (Finding& finding : verified.findings) {
      finding.file = (options_.output / fs::path(finding.file).filename()).string();
      if (fs::path(finding.file).filename() == staged.filename())
        finding.file = options_.output.string();
      if (finding.severity != Severity::error) continue;
      errors.push_back(finding.rule + " " + finding.message);
      if (hint.empty()) hint = finding.hint;
      is_about_base = is_about_base && (finding.rule[2] == '3' || finding.rule[2] == '5');
    }
    if (!errors.empty())
      refuse(is_about_base ? ErrorKind::incompatible : ErrorKind::malformed,
             "the result would not pass lora verify: " + rules::join_some(errors), hint);
    report_.findings = std::move(verified.findings);
  }

  const RepairOptions& options_;
  std::string name_;
  RepairReport report_;
  RepairSource source_;
  RepairedNames names_;
  bool is_cast_ = false;
};

}  // namespace

RepairReport repair(const RepairOptions& options) { return Repair(options).run(); }

}  // namespace lora
