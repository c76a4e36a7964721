#include "lora/ops/unmerge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <system_error>

#include "checkpoint/aliases.h"
#include "lora/adapter/manifest.h"
#include "lora/base/equal_bytes.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/ops/adapter_set.h"
#include "ops/adapter_digest.h"
#include "ops/merge/copies.h"
#include "ops/merge/record.h"
#include "ops/output_place.h"
#include "ops/replay/plan.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

// What is known of the base: its root, and digests of some or all of its tensors.
struct Recorded {
  std::optional<Digest> root;
  std::map<std::string, Digest> tensors;
  std::string source;
  bool is_safe_merge = false;
  std::map<std::string, std::string> untied;  // by the merge
};

double step_of(float value, DType dtype) {
  const int precision = dtype == DType::bf16 ? 8 : dtype == DType::f16 ? 11 : 24;
  const int least = dtype == DType::f16 ? -14 : -126;
  const int exponent = value == 0 ? least : std::max(least, std::ilogb(value));
  return std::ldexp(1.0, exponent - precision + 1);
}

// Half a step of the sum, which the merge rounded, half a step of the difference, which this one
// rounds, and for safe_merge half a step of the update.
void bound(const Tensor& merged, const Tensor& restored, bool is_safe_merge, RestoredTensor& out) {
  const std::vector<float> sums = merged.to_f32(), values = restored.to_f32();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double step = step_of(values[i], restored.dtype);
    double open = (step_of(sums[i], merged.dtype) + step) / 2;
    if (is_safe_merge && merged.dtype != DType::f32)
      open += step_of(sums[i] - values[i], merged.dtype) / 2;
    out.worst_ulps = std::max(out.worst_ulps, open / step);
    out.uncertain += open > step ? 1 : 0;
  }
}

// Half a step of the merge's dtype, where that is what the base was rounded to.
void bound_rounding(DType merged, const Tensor& restored, RestoredTensor& out) {
  if (step_of(1, merged) <= step_of(1, restored.dtype)) return;
  for (const float value : restored.to_f32()) {
    const double ulps = step_of(value, merged) / 2 / step_of(value, restored.dtype);
    out.worst_ulps = std::max(out.worst_ulps, ulps);
    out.uncertain += ulps > 1 ? 1 : 0;
  }
}

class Unmerging {
 public:
  Unmerging(const UnmergeOptions& options, const Sinks& sinks)
      : options_(options), sinks_(sinks), merged_(*options.merged), start_(merged_) {
    report_.output = options.output;
  }

  UnmergeReport run() {
    require_apart(options_.output, merged_.path, "unmerge to", "the merged checkpoint");
    for (const stdfs::path& file : merged_.files)
      require_apart(options_.output, file, "unmerge to", "the merged checkpoint");
    refuse_replaced();
    if (!options_.dry_run) require_absent(options_.output, options_.force, true);
    read_records();
    take_copies();
    tie_again();
    MergeOptions merging;
    merging.base = &start_;
    merging.settled = settled_;
    merging.tied = tied_;
    for (const WeightedAdapter& one : options_.adapters)
      merging.adapters.push_back({one.adapter, -one.weight});
    merging.output = options_.output;
    merging.dtype = options_.dtype;
    merging.max_memory = options_.max_memory;
    merging.any_base = true;
    merging.force = options_.force;
    merging.dry_run = options_.dry_run;
    merging.threads = options_.threads;
    merging.file_system = options_.file_system;
    merging.approve = [this](const Checkpoint& written, const BaseLock& lock,
                             const std::vector<MergedWeight>& changed) {
      judge(written, lock, changed);
    };
    MergeReport done = merge(merging, sinks_);
    if (options_.dry_run) {
      for (const MergedWeight& weight : done.weights) add(weight.base_name);
      add_whole();
    }
    report_.weight_bytes = done.weight_bytes;
    report_.files = std::move(done.files);
    report_.notes.insert(report_.notes.end(), done.notes.begin(), done.notes.end());
    report_.root = done.root;
    return std::move(report_);
  }

 private:
  void refuse_replaced() const {
    std::vector<std::string> gone;
    for (const WeightedAdapter& one : options_.adapters) {
      for (const auto& [name, tensor] : one.adapter.replacements)
        if (!is_base_copy(one.adapter, name)) gone.push_back(name);
      for (const TokenRows& rows : one.adapter.tokens)
        gone.push_back("rows of " + rows.module_path + ".weight");
      for (const LoraModule& module : one.adapter.modules)
        if (module.magnitude) gone.push_back(module.base_name + " (DoRA scales the base itself)");
    }
    if (gone.empty()) return;
    throw Error(ErrorKind::unsupported, "cannot unmerge " + merged_.path.string() +
                                            ": the base's values are not in it any more of " +
                                            rules::join_some(gone, 5))
        .in_file(merged_.path.string())
        .with_hint("only what is added can be subtracted; keep the base");
  }

  void read_records() {
    std::error_code ignored;
    const stdfs::path path = merged_.directory / merging::kRecordName;
    if (!merged_.directory.empty() && stdfs::is_regular_file(path, ignored)) {
      const auto record = merging::read_record(merged_.directory);
      if (!record)
        throw Error(ErrorKind::malformed,
                    "cannot read " + path.string() + ": it is no merge record")
            .in_file(path.string());
      take_record(*record);
    }
    for (const WeightedAdapter& one : options_.adapters) {
      const auto manifest = read_manifest(one.adapter.directory());
      if (!manifest) continue;
      if (!recorded_.root && manifest->base_root) {
        recorded_.root = manifest->base_root;
        recorded_.source = kManifestName;
      }
      if (manifest->base_root == recorded_.root)
        recorded_.tensors.insert(manifest->base_tensors.begin(), manifest->base_tensors.end());
    }
    if (!options_.base_lock) return;
    if (recorded_.root && *recorded_.root != options_.base_lock->root)
      throw Error(ErrorKind::incompatible, "cannot unmerge " + merged_.path.string() + ": " +
                                               recorded_.source + " records the base " +
                                               recorded_.root->hex() + ", the given lock is of " +
                                               options_.base_lock->root.hex())
          .in_file(merged_.path.string());
    recorded_.root = options_.base_lock->root;
    recorded_.source = kBaseLockName;
    for (const auto& [name, tensor] : options_.base_lock->tensors)
      recorded_.tensors[name] = tensor.digest;
  }

  void take_record(const merging::Record& record) {
    recorded_.root = record.base_root;
    recorded_.source = merging::kRecordName;
    recorded_.is_safe_merge = record.compat == "safe_merge";
    recorded_.untied = record.untied;
    bool is_same = record.adapters.size() == options_.adapters.size();
    for (std::size_t i = 0; is_same && i < record.adapters.size(); ++i)
      is_same =
          record.adapters[i] == adapter_digest(options_.adapters[i].adapter, options_.threads) &&
          record.weights[i] == options_.adapters[i].weight;
    if (!is_same)
      throw Error(ErrorKind::incompatible, "cannot unmerge " + merged_.path.string() + ": its " +
                                               merging::kRecordName +
                                               " records other adapters, weights or another order")
          .in_file((merged_.directory / merging::kRecordName).string())
          .with_hint("lora inspect shows what the merge was made of");
  }

  // Adapters that change the weight, or bring it whole.
  bool is_touched(const std::string& name) const {
    const auto is_it = [&](const std::string& base_name) {
      return replay::is_stored_as(merged_, base_name, name);
    };
    return std::any_of(
        options_.adapters.begin(), options_.adapters.end(), [&](const WeightedAdapter& one) {
          const auto& [adapter, weight] = one;
          return std::any_of(adapter.replacements.begin(), adapter.replacements.end(),
                             [&](const auto& entry) { return is_it(entry.first); }) ||
                 std::any_of(adapter.modules.begin(), adapter.modules.end(),
                             [&](const LoraModule& module) { return is_it(module.base_name); });
        });
  }

  // Where an adapter brought along what it changes, that is the base's weight.
  void take_copies() {
    for (const WeightedAdapter& one : options_.adapters)
      for (const auto& [name, copy] : one.adapter.replacements) {
        const std::string stored = replay::stored_name(start_, name);
        if (stored.empty() || settled_.contains(stored) || !is_base_copy(one.adapter, name))
          continue;
        Tensor& place = start_.tensors.at(stored);
        if (place.shape != copy.shape) continue;  // merge says so
        place = copy.cast(options_.dtype.value_or(place.dtype));
        settled_.insert(stored);
        if (start_.aliases.contains(name)) settled_.insert(name);
        copied_[stored] = copy;
      }
  }

  // A matrix that the merge untied. Where it changed one of the two, the other is the base's.
  // Only what config.json can say.
  void tie_again() {
    for (const auto& [name, canonical] : recorded_.untied) {
      const auto own = start_.tensors.find(name), other = start_.tensors.find(canonical);
      if (!start_.config || !is_known_tie(name, canonical) || own == start_.tensors.end() ||
          other == start_.tensors.end() || own->second.shape != other->second.shape)
        continue;
      const bool is_own_touched = is_touched(name), is_other_touched = is_touched(canonical);
      if (is_own_touched == is_other_touched) {
        // Both are restored: from copies, or because nothing changed them.
        const bool is_known =
            !is_own_touched || (settled_.contains(name) && settled_.contains(canonical));
        if (!is_known || !has_equal_bytes(own->second, other->second)) continue;
      } else {
        const Tensor twin = is_own_touched ? other->second : own->second;
        const DType dtype = options_.dtype.value_or(twin.dtype);
        const auto found = copied_.find(is_own_touched ? name : canonical);
        // A merge that rounded the twin left a copy that tells more.
        const bool is_copied = found != copied_.end() &&
                               has_equal_bytes(found->second.cast(twin.dtype), twin) &&
                               !has_equal_bytes(found->second.cast(dtype), twin.cast(dtype));
        const Tensor whole = is_copied ? found->second : twin;
        other->second = whole.cast(dtype);
        copied_.erase(canonical);
        if (is_copied) copied_[canonical] = whole;
        if (!is_copied && is_other_touched) twins_[canonical] = twin.dtype;
      }
      start_.tensors.erase(own);
      start_.aliases[name] = canonical;
      tied_[name] = canonical;
      settled_.insert({name, canonical});
      copied_.erase(name);
      report_.notes.push_back(name + " and " + canonical +
                              " are one matrix again, as in the base: the merge untied them");
    }
  }

  RestoredTensor& add(const std::string& name) {
    RestoredTensor& tensor = report_.tensors.emplace_back();
    tensor.base_name = name;
    return tensor;
  }

  // What was not subtracted.
  void add_whole() {
    for (const auto& [name, copy] : copied_) add(name).is_copy = true;
    for (const auto& [name, dtype] : twins_) add(name);
  }

  // Tensors that were not touched are the merge's own bytes, so only the others need proof; without
  // digests of them the root, which is over all tensors, decides.
  void judge(const Checkpoint& written, const BaseLock& lock,
             const std::vector<MergedWeight>& changed) {
    std::vector<RestoredTensor>& tensors = report_.tensors;
    tensors.resize(changed.size());
    parallel_for(changed.size(), options_.threads, [&](std::size_t i) {
      sinks_.throw_if_cancelled();
      const std::string name = replay::stored_name(written, changed[i].base_name);
      const Tensor& tensor = written.tensors.at(name);
      tensors[i].base_name = name;
      tensors[i].elements = tensor.numel();
      bound(*merged_.find(name), tensor, recorded_.is_safe_merge, tensors[i]);
    });
    add_whole();
    for (std::size_t i = changed.size(); i < tensors.size(); ++i) {
      const Tensor& tensor = written.tensors.at(tensors[i].base_name);
      tensors[i].elements = tensor.numel();
      const auto twin = twins_.find(tensors[i].base_name);
      if (twin != twins_.end()) bound_rounding(twin->second, tensor, tensors[i]);
    }
    const bool has_root = recorded_.root && lock.root == *recorded_.root;
    bool is_each_equal = !tensors.empty();
    for (RestoredTensor& tensor : tensors) {
      const auto digest = recorded_.tensors.find(tensor.base_name);
      if (has_root) tensor.is_equal = true;
      if (!has_root && digest != recorded_.tensors.end())
        tensor.is_equal = lock.tensors.at(tensor.base_name).digest == digest->second;
      is_each_equal = is_each_equal && tensor.is_equal.value_or(false);
      if (!tensor.is_equal.value_or(false)) {
        report_.worst_ulps = std::max(report_.worst_ulps, tensor.worst_ulps);
        report_.uncertain += tensor.uncertain;
      }
    }
    // A root says more than the digests of what was touched.
    report_.is_exact = recorded_.root ? has_root : is_each_equal;
    report_.recorded_in = recorded_.source;
    if (report_.is_exact) return;
    const std::set<std::string> names = contradicted_copies();
    const std::string contradicted = rules::join_some({names.begin(), names.end()}, 5);
    const std::string doubt =
        contradicted.empty() ? ""
                             : "with its update the copy of " + contradicted +
                                   " does not give what the merge holds, so one of the two is of "
                                   "another model, or computed otherwise";
    if (!options_.allow_inexact) refuse_inexact(doubt);
    if (!doubt.empty()) report_.notes.push_back(doubt);
  }

  // With its update a copy should give what the merge holds, in the base's dtype or its own.
  std::set<std::string> contradicted_copies() {
    const auto find_in = [&](const std::set<std::string>& names, const Checkpoint& base) {
      return merging::contradicted_copies(names, options_.adapters, base, merged_, options_.threads,
                                          sinks_);
    };
    std::set<std::string> names;
    Checkpoint uncast = start_;
    for (const auto& [name, copy] : copied_) {
      names.insert(name);
      uncast.tensors.at(name) = copy;
    }
    const std::set<std::string> contradicted = find_in(find_in(names, start_), uncast);
    for (RestoredTensor& tensor : report_.tensors)
      if (tensor.is_copy) tensor.gives_merge = !contradicted.contains(tensor.base_name);
    return contradicted;
  }

  void refuse_inexact(const std::string& doubt) const {
    std::int64_t differing = 0, copies = 0;
    for (const RestoredTensor& tensor : report_.tensors) {
      differing += tensor.is_equal == false ? 1 : 0;
      copies += tensor.is_copy ? 1 : 0;
    }
    char ulps[32];
    std::snprintf(ulps, sizeof(ulps), "%.4g", report_.worst_ulps);
    std::string why = "nothing records the base it should be";
    if (differing != 0)
      why = std::to_string(differing) + " of " + std::to_string(report_.tensors.size()) +
            " restored tensors have another digest than " + report_.recorded_in + " records";
    else if (!report_.recorded_in.empty())
      why = "the root is not the one that " + report_.recorded_in + " records";
    throw Error(ErrorKind::incompatible,
                "cannot unmerge " + merged_.path.string() + " exactly: " + why +
                    "; the restored values are within " + ulps + " ulp of the base's, and " +
                    std::to_string(report_.uncertain) + " may differ from it" +
                    (copies == 0 ? ""
                                 : "; " + std::to_string(copies) +
                                       (copies == 1 ? " tensor is a copy" : " tensors are copies") +
                                       " of the base's that the adapters hold") +
                    (doubt.empty() ? "" : "; " + doubt))
        .in_file(merged_.path.string())
        .with_hint("--allow-inexact writes it; an exact base needs the base itself");
  }

  const UnmergeOptions& options_;
  const Sinks& sinks_;
  const Checkpoint& merged_;
  Checkpoint start_;  // the same with what needs no subtraction
  std::map<std::string, std::string> tied_;
  std::set<std::string> settled_;
  std::map<std::string, Tensor> copied_;  // as the adapter holds them
  // Changed by the merge, and restored from the name it untied, in the dtype that has there.
  std::map<std::string, DType> twins_;
  Recorded recorded_;
  UnmergeReport report_;
};

}  // namespace

UnmergeReport unmerge(const UnmergeOptions& options, const Sinks& sinks) {
  if (options.adapters.empty()) throw Error(ErrorKind::usage, "unmerge got no adapter");
  return Unmerging(options, sinks).run();
}

}  // namespace lora
