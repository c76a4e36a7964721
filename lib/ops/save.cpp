#include "lora/ops/save.h"

#include <algorithm>
#include <map>
#include <set>

#include "lora/adapter/manifest.h"
#include "lora/adapter/probe.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/engine.h"
#include "lora/ops/fit.h"
#include "lora/ops/statistics.h"
#include "ops/base_record.h"
#include "ops/cast_tensors.h"
#include "ops/inner_wrapper.h"
#include "ops/model_card.h"
#include "ops/rules/rule.h"
#include "ops/save_config.h"
#include "ops/save_source.h"
#include "ops/state_dict.h"

namespace lora {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModelCardName = "README.md";

class Saving {
 public:
  Saving(const SaveOptions& options, SaveSource source, fs::path output, std::string name)
      : options_(options),
        path_(std::move(source.path)),
        source_(path_.string()),
        inside_(std::move(source.inside)) {
    report_.output = std::move(output);
    report_.adapter_name = std::move(name);
  }

  void prepare() {
    read();
    check_tensors();
    check_config();
    if (options_.base) require_fit(report_.adapter, *options_.base);
    cast();
    if (!options_.bare) record();
    for (const auto& [key, tensor] : report_.adapter.tensors) report_.bytes += tensor.bytes.size();
  }

  void write(AtomicDirectory& directory) const {
    write_adapter(directory, report_.adapter.config, report_.adapter.tensors);
    if (options_.model_card)
      directory.write(kModelCardName, model_card(report_.adapter, is_for_transformers()));
    if (options_.bare) return;
    write_manifest(directory, manifest_);
    if (probe_) write_probe(directory, *probe_);
  }

  SaveReport take_report() { return std::move(report_); }

 private:
  const AdapterConfig* given_config() const {
    const auto own = options_.configs.find(report_.adapter_name);
    if (own != options_.configs.end()) return &own->second;
    return options_.config ? &*options_.config : nullptr;
  }

  void read() {
    if (is_adapter_directory(path_)) {
      if (options_.flags.alpha || options_.flags.use_rslora || options_.flags.task)
        throw Error(ErrorKind::usage, "cannot apply --alpha, --rslora or --task to " + source_ +
                                          ": an adapter says these itself")
            .in_file(source_)
            .with_hint("--adapter-config replaces its configuration");
      previous_ = read_manifest(path_);
      read_directory();
      return;
    }
    AdapterPart part = adapter_part(read_state_dict(path_), given_config(), path_, inside_);
    note_copies(part.copies);
    report_.left_out = std::move(part.left_out);
    report_.left_out_bytes = part.left_out_bytes;
    report_.unwrapped = std::move(part.unwrapped);
    if (options_.base) take_inner(part.tensors);
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
    AdapterConfig config = given_config()
                               ? *given_config()
                               : config_from_keys(part.tensors, options_.flags, known, source_);
    report_.adapter = make_adapter(std::move(config), std::move(part.tensors), path_);
  }

  void read_directory() {
    const AdapterConfig* given = given_config();
    Adapter adapter =
        open_adapter(path_, given ? std::optional<AdapterConfig>(*given) : std::nullopt, inside_);
    if (inside_ ? adapter.name != *inside_ : !adapter.others.empty()) {
      std::vector<std::string> names{adapter.name};
      for (const auto& [name, tensors] : adapter.others) names.push_back(name);
      throw no_single_adapter(path_, names, inside_);
    }
    std::vector<std::string> faults;
    std::size_t copies = 0;
    for (const KeyProblem& problem : adapter.problems) {
      if (problem.kind == KeyProblem::Kind::duplicate)
        faults.push_back(problem.key + " " + problem.message);
      copies += problem.kind == KeyProblem::Kind::copy ? 1 : 0;
    }
    if (!faults.empty())
      throw Error(ErrorKind::malformed,
                  "cannot save from " + source_ + ": " + rules::join_some(faults, 3))
          .in_file(source_)
          .with_hint("remove the stale tensor of each two, or save the checkpoint it came from");
    note_copies(copies);
    for (const auto& [name, tensors] : adapter.others)
      for (const auto& [key, tensor] : tensors) {
        report_.left_out.push_back(key);
        report_.left_out_bytes += tensor.bytes.size();
      }
    std::set<std::string> unwrapped;
    for (const std::string& key : adapter.unclean_keys)
      for (const std::string& wrapper : parse_key(key).wrappers) unwrapped.insert(wrapper);
    report_.unwrapped.assign(unwrapped.begin(), unwrapped.end());
    report_.adapter = make_adapter(std::move(adapter.config), std::move(adapter.tensors), path_);
  }

  void note_copies(std::size_t count) {
    if (count != 0)
      report_.notes.push_back(std::to_string(count) +
                              (count == 1 ? " tensor stands" : " tensors stand") +
                              " in the source under a second name with equal bytes; each is "
                              "written once");
  }

  void take_inner(TensorMap& tensors) {
    std::set<std::string> paths;
    for (const ModuleInfo& info : list_modules(*options_.base)) paths.insert(info.module_path);
    TensorMap renamed;
    for (const auto& [peft_key, tensor] : tensors) {
      ParsedKey key = parse_key(peft_key);
      if (const auto path = without_inner(key.module_path, paths)) key.module_path = *path;
      renamed.emplace(to_peft_key(key), tensor);
    }
    if (renamed.size() != tensors.size() ||
        std::equal(renamed.begin(), renamed.end(), tensors.begin(),
                   [](const auto& a, const auto& b) { return a.first == b.first; }))
      return;
    report_.unwrapped.emplace_back("inner");
    tensors = std::move(renamed);
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
    if (adapter.modules.empty() && adapter.tokens.empty() && faults.empty())
      faults.push_back("no complete LoRA layer");
    if (faults.empty()) return;
    throw Error(ErrorKind::malformed,
                "cannot save from " + source_ + ": " + rules::join_some(faults))
        .in_file(source_);
  }

  void check_config() {
    if (options_.flags.base_name)
      report_.adapter.config.base_model_name_or_path = options_.flags.base_name;
    std::vector<std::string> faults;
    for (const KeyProblem& problem : report_.adapter.problems)
      if (contradicts_config(problem)) faults.push_back(problem.key + " " + problem.message);
    if (faults.empty()) return;
    throw Error(ErrorKind::incompatible,
                "cannot save from " + source_ +
                    ": tensors and configuration disagree: " + rules::join_some(faults))
        .in_file(source_)
        .with_hint("give the adapter_config.json that belongs to these weights");
  }

  void cast() {
    if (!options_.dtype) return;
    CastTensors cast = cast_tensors(report_.adapter.tensors, *options_.dtype, options_.threads);
    is_cast_ = cast.converted != 0;
    if (!is_cast_) return;
    report_.notes.push_back(std::to_string(cast.converted) + " tensors were rounded to " +
                            std::string(to_string(*options_.dtype)));
    if (cast.vanished != 0)
      report_.notes.push_back(std::to_string(cast.vanished) +
                              " values are too small for it and became zero");
    report_.adapter =
        make_adapter(std::move(report_.adapter.config), std::move(cast.tensors), path_);
  }

  bool is_for_transformers() const {
    if (options_.base && options_.base->config) return options_.base->config->is_transformers();
    return report_.adapter.config.task_type.has_value();
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
      // Outputs of other values would prove nothing.
      if (previous_ && !is_cast_ && fs::exists(path_ / kProbeName) &&
          previous_->tensors.size() == manifest_.tensors.size())
        probe_ = read_probe(path_ / kProbeName);
      if (!manifest_.base_root)
        report_.notes.push_back("no --base given: the identity of the base is not recorded");
    } else {
      const BaseLock lock = compute_base_lock(*options_.base, options_.threads, options_.sinks);
      if (previous_) require_recorded_base(*previous_, lock, source_, options_.base->path.string());
      record_base(manifest_, report_.adapter, *options_.base, lock);
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

  static JsonArray to_array(const std::vector<std::string>& items) {
    JsonArray array;
    for (const std::string& item : items) array.emplace_back(item);
    return array;
  }

  const SaveOptions& options_;
  fs::path path_;
  std::string source_;
  std::optional<std::string> inside_;  ///< name of the adapter inside the keys of the file
  SaveReport report_;
  bool is_cast_ = false;
  std::optional<Manifest> previous_;
  Manifest manifest_;
  std::optional<Probe> probe_;
};

void require_output(const SaveOptions& options) {
  if (!options.dry_run) require_absent(options.output, options.write.force, true);
}

}  // namespace

SaveReport save(const SaveOptions& options) {
  require_output(options);
  Saving saving(options, choose_source(options), options.output,
                options.adapter_name.value_or(kDefaultAdapter));
  saving.prepare();
  if (!options.dry_run) {
    AtomicDirectory directory(options.output, options.write);
    saving.write(directory);
    directory.commit();
  }
  return saving.take_report();
}

std::vector<SaveReport> save_all(const SaveOptions& options) {
  require_output(options);
  const std::map<std::string, SaveSource> sources = all_sources(options.source);
  std::vector<Saving> savings;
  for (const auto& [name, source] : sources) {
    const fs::path folder = name == kDefaultAdapter ? options.output : options.output / name;
    // A name from a file becomes a folder: it must not lead anywhere else.
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
      throw Error(ErrorKind::unsupported, "cannot save the adapter \"" + name + "\" of " +
                                              options.source.string() +
                                              ": its name is no folder name")
          .in_file(options.source.string())
          .with_hint("--adapter-name with -o saves it alone");
    savings.emplace_back(options, source, folder, name).prepare();
  }
  if (!options.dry_run) {
    AtomicDirectory directory(options.output, options.write);
    for (std::size_t i = 0; const auto& [name, source] : sources) {
      if (name == kDefaultAdapter) {
        savings[i].write(directory);
      } else {
        AtomicDirectory folder(directory.staging_path() / name, options.write);
        savings[i].write(folder);
        folder.commit();
      }
      ++i;
    }
    directory.commit();
  }
  std::vector<SaveReport> reports;
  for (Saving& saving : savings) reports.push_back(saving.take_report());
  return reports;
}

}  // namespace lora
