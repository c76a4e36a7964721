#include "lora/ops/save.h"

#include <algorithm>
#include <set>

#include "lora/adapter/manifest.h"
#include "lora/adapter/probe.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/checkpoint/tokenizer_files.h"
#include "lora/engine.h"
#include "lora/ops/fit.h"
#include "lora/ops/statistics.h"
#include "ops/rules/rule.h"
#include "ops/save_config.h"
#include "ops/state_dict.h"

namespace lora {
namespace {

class Saving {
 public:
  explicit Saving(const SaveOptions& options)
      : options_(options), source_(options.source.string()) {
    report_.output = options.output;
  }

  SaveReport run() {
    if (!options_.dry_run) require_absent(options_.output, options_.write.force, true);
    read();
    check_tensors();
    check_config();
    if (options_.base) require_fit(report_.adapter, *options_.base);
    if (!options_.bare) record();
    for (const auto& [key, tensor] : report_.adapter.tensors) report_.bytes += tensor.bytes.size();
    if (!options_.dry_run) write();
    return std::move(report_);
  }

 private:
  void read() {
    if (is_adapter_directory(options_.source)) {
      if (options_.flags.alpha || options_.flags.use_rslora || options_.flags.task)
        throw Error(ErrorKind::usage, "cannot apply --alpha, --rslora or --task to " + source_ +
                                          ": an adapter says these itself")
            .in_file(source_)
            .with_hint("--adapter-config replaces its configuration");
      Adapter adapter = open_adapter(options_.source);
      previous_ = read_manifest(options_.source);
      for (const std::string& key : adapter.unclean_keys)
        for (const std::string& wrapper : parse_key(key).wrappers) unwrapped_.insert(wrapper);
      report_.unwrapped.assign(unwrapped_.begin(), unwrapped_.end());
      AdapterConfig config = options_.config.value_or(adapter.config);
      report_.adapter =
          make_adapter(std::move(config), std::move(adapter.tensors), options_.source);
      return;
    }
    const AdapterConfig* given = options_.config ? &*options_.config : nullptr;
    AdapterPart part = adapter_part(read_state_dict(options_.source), given, options_.source);
    report_.left_out = std::move(part.left_out);
    report_.left_out_bytes = part.left_out_bytes;
    report_.unwrapped = std::move(part.unwrapped);
    if (part.tensors.empty())
      throw Error(ErrorKind::malformed, "cannot save from " + source_ + ": found " +
                                            std::to_string(report_.left_out.size()) +
                                            " tensors, none of them a LoRA weight")
          .in_file(source_)
          .with_hint("names such as layers.0.q_proj.lora_A.default.weight were expected");
    std::vector<std::string> known = std::move(part.module_paths);
    if (options_.base)
      for (const ModuleInfo& info : list_modules(*options_.base)) known.push_back(info.module_path);
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    AdapterConfig config =
        given ? *given : config_from_keys(part.tensors, options_.flags, known, source_);
    report_.adapter = make_adapter(std::move(config), std::move(part.tensors), options_.source);
  }

  // A whole pair whose rank is not the configured one is no damage; check_config reports it.
  bool contradicts_config(const KeyProblem& problem) const {
    return problem.kind == KeyProblem::Kind::rank_mismatch &&
           report_.adapter.find(parse_key(problem.key).module_path) != nullptr;
  }

  void check_tensors() const {
    const Adapter& adapter = report_.adapter;
    std::vector<std::string> faults;
    for (const KeyProblem& problem : adapter.problems)
      if (!contradicts_config(problem)) faults.push_back(problem.key + ": " + problem.message);
    for (const auto& [key, tensor] : adapter.tensors)
      if (tensor.numel() == 0)
        faults.push_back(key + ": no elements (parameters were not gathered before saving)");
    std::vector<const TensorMap::value_type*> floats;
    for (const auto& entry : adapter.tensors)
      if (is_float(entry.second.dtype)) floats.push_back(&entry);
    std::vector<std::int64_t> bad(floats.size(), -1);
    parallel_for(floats.size(), options_.threads, [&](std::size_t i) {
      bad[i] = statistics_of(floats[i]->second).first_non_finite;
    });
    for (std::size_t i = 0; i < floats.size(); ++i)
      if (bad[i] >= 0)
        faults.push_back(floats[i]->first + ": not finite at element " + std::to_string(bad[i]));
    if (adapter.modules.empty() && faults.empty()) faults.push_back("no complete LoRA layer");
    if (faults.empty()) return;
    throw Error(ErrorKind::malformed,
                "cannot save from " + source_ + ": " + rules::join_some(faults))
        .in_file(source_);
  }

  void check_config() {
    AdapterConfig& config = report_.adapter.config;
    if (options_.flags.base_name) config.base_model_name_or_path = options_.flags.base_name;
    std::vector<std::string> faults;
    for (const LoraModule& module : report_.adapter.modules) {
      const std::int64_t expected = rank_of(config, module.module_path);
      if (module.rank != expected)
        faults.push_back(module.module_path + " has rank " + std::to_string(module.rank) +
                         ", the configuration says " + std::to_string(expected));
    }
    if (faults.empty()) return;
    throw Error(ErrorKind::incompatible,
                "cannot save from " + source_ +
                    ": tensors and configuration disagree: " + rules::join_some(faults))
        .in_file(source_)
        .with_hint("give the adapter_config.json that belongs to these weights");
  }

  void record() {
    manifest_ = make_manifest(report_.adapter, options_.threads);
    if (previous_) manifest_.history = previous_->history;
    manifest_.history.push_back(JsonObject{{"operation", "save"},
                                           {"left_out", std::int64_t(report_.left_out.size())},
                                           {"unwrapped", to_array(report_.unwrapped)}});
    if (options_.base == nullptr) {
      if (previous_) {
        manifest_.base_root = previous_->base_root;
        manifest_.base_tensors = previous_->base_tensors;
        manifest_.base_tokenizer = previous_->base_tokenizer;
        manifest_.base_chat_template = previous_->base_chat_template;
      }
      if (is_adapter_directory(options_.source) &&
          std::filesystem::exists(options_.source / kProbeName) && previous_ &&
          previous_->tensors.size() == manifest_.tensors.size())
        probe_ = read_probe(options_.source / kProbeName);
      if (!manifest_.base_root)
        report_.notes.push_back("no --base given: the identity of the base is not recorded");
    } else {
      const BaseLock lock = compute_base_lock(*options_.base, options_.threads, options_.sinks);
      if (previous_) require_recorded_base(*previous_, lock, source_, options_.base->path.string());
      manifest_.base_root = lock.root;
      const TokenizerFiles tokenizer = read_tokenizer_files(options_.base->directory);
      manifest_.base_tokenizer = tokenizer.tokenizer;
      manifest_.base_chat_template = tokenizer.chat_template_digest();
      for (const LoraModule& module : report_.adapter.modules) {
        const std::string name = module.module_path + ".weight";
        const auto alias = lock.aliases.find(name);
        const auto found = lock.tensors.find(alias == lock.aliases.end() ? name : alias->second);
        if (found != lock.tensors.end())
          manifest_.base_tensors[found->first] = found->second.digest;
      }
      record_outputs();
    }
    if (manifest_.base_root) report_.base_root = manifest_.base_root->hex();
    report_.has_probe = probe_.has_value();
  }

  void record_outputs() {
    if (!options_.engine) return;
    try {
      ModelOptions model;
      model.base = options_.base;
      model.adapters = {&report_.adapter};
      probe_ = options_.engine().record_probe(model);
    } catch (const Error& error) {
      // The adapter itself is whole without a record of outputs; say why there is none.
      if (error.kind() != ErrorKind::resources && error.kind() != ErrorKind::unsupported) throw;
      report_.notes.push_back("outputs are not recorded: " + error.message());
    }
  }

  void write() {
    AtomicDirectory directory(options_.output, options_.write);
    write_adapter(directory, report_.adapter.config, report_.adapter.tensors);
    if (!options_.bare) {
      write_manifest(directory, manifest_);
      if (probe_) write_probe(directory, *probe_);
    }
    directory.commit();
  }

  static JsonArray to_array(const std::vector<std::string>& items) {
    JsonArray array;
    for (const std::string& item : items) array.emplace_back(item);
    return array;
  }

  const SaveOptions& options_;
  std::string source_;
  SaveReport report_;
  std::set<std::string> unwrapped_;
  std::optional<Manifest> previous_;
  Manifest manifest_;
  std::optional<Probe> probe_;
};

}  // namespace

SaveReport save(const SaveOptions& options) { return Saving(options).run(); }

}  // namespace lora
