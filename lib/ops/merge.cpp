#include "lora/ops/merge.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <system_error>

#include "lora/adapter/token_indices.h"
#include "lora/base/atomic_write.h"
#include "lora/base/error.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/grow_vocabulary.h"
#include "lora/format/torch_file.h"
#include "lora/ops/adapter_set.h"
#include "lora/ops/fit.h"
#include "lora/ops/verify_merged.h"
#include "ops/adapter_digest.h"
#include "ops/init_base_plan.h"
#include "ops/merge/config.h"
#include "ops/merge/digests.h"
#include "ops/merge/finite.h"
#include "ops/merge/identity.h"
#include "ops/merge/layout.h"
#include "ops/merge/record.h"
#include "ops/merge/writer.h"
#include "ops/output_place.h"
#include "ops/replay/plan.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

using replay::Sums;
using replay::Target;

bool is_changed(const Target& target) {
  return !target.blocks.empty() || !target.replaced_rows.empty() || target.is_saved;
}

void describe(const Sums& sums, std::optional<double>& changed, std::optional<double>& survived,
              std::optional<double>& cosine) {
  if (sums.count == 0 || sums.wanted == 0) return;
  changed = static_cast<double>(sums.changed) / static_cast<double>(sums.count);
  survived = sums.survived / sums.wanted;
  cosine = sums.found > 0 ? sums.overlap / std::sqrt(sums.wanted * sums.found) : 0;
}

// Size and time of the base's files: what a pass over them must find unchanged.
std::vector<std::pair<std::uintmax_t, stdfs::file_time_type>> stamps_of(const Checkpoint& base) {
  std::vector<std::pair<std::uintmax_t, stdfs::file_time_type>> stamps;
  std::error_code ignored;
  for (const stdfs::path& file : base.files)
    stamps.emplace_back(stdfs::file_size(file, ignored), stdfs::last_write_time(file, ignored));
  return stamps;
}

class Merging {
 public:
  Merging(const MergeOptions& options, const Sinks& sinks)
      : options_(options), sinks_(sinks), base_(*options.base), identity_(base_) {
    report_.output = options.output;
    writing_ = {options.is_safe_merge, options.max_memory, options.threads, base_.mappings, sinks};
  }

  MergeReport run() {
    check_request();
    take_adapters();
    identify();
    require_output();
    grow();
    plan();
    if (options_.dry_run) {
      list_files();
      report_.estimated_seconds = merging::estimate_seconds(plan_.targets, writing_);
    } else {
      write();
    }
    return std::move(report_);
  }

 private:
  void check_request() const {
    if (options_.adapters.empty()) throw Error(ErrorKind::usage, "merge got no adapter");
    if (options_.output.empty()) throw Error(ErrorKind::usage, "merge got an empty output path");
    constexpr std::uint64_t kLeast = 16'000'000;
    if (options_.max_memory < kLeast)
      throw Error(ErrorKind::usage, "--max-memory allows " + std::to_string(options_.max_memory) +
                                        " bytes, expected at least " + std::to_string(kLeast));
    const auto apart_from = [&](const stdfs::path& input, const char* what) {
      require_apart(options_.output, input, "merge into", what);
    };
    apart_from(base_.path, "the base");
    for (const stdfs::path& file : base_.files) apart_from(file, "the base");
    for (const WeightedAdapter& one : options_.adapters) apart_from(one.adapter.path, "an adapter");
    refuse_quantised(base_, "merge into");
  }

  void take_adapters() {
    adapters_.reserve(options_.adapters.size());
    for (const WeightedAdapter& one : options_.adapters) {
      refuse_replication(one.adapter);
      Adapter& adapter = adapters_.emplace_back(one.adapter);
      require_fit(adapter, base_);
      adapter = replay::settled(adapter, base_);
      drop_base_copies(adapter, base_);
      apply_weight(adapter, one.weight);
      leave_settled(adapter);
      merging::require_finite(adapter);
    }
    for (const Adapter& adapter : adapters_) active_.push_back(&adapter);
    require_no_conflict(active_);
  }

  void leave_settled(Adapter& adapter) const {
    const auto is_settled = [&](const std::string& base_name) {
      return std::any_of(options_.settled.begin(), options_.settled.end(),
                         [&](const std::string& stored) {
                           return replay::is_stored_as(base_, base_name, stored);
                         });
    };
    std::erase_if(adapter.modules,
                  [&](const LoraModule& module) { return is_settled(module.base_name); });
    std::erase_if(adapter.replacements, [&](const auto& entry) { return is_settled(entry.first); });
  }

  // The layers that its keys name are no tensors of the base.
  static void refuse_replication(const Adapter& adapter) {
    const Json* replication = adapter.config.other.find("layer_replication");
    if (replication != nullptr && !replication->is_null())
      throw Error(ErrorKind::unsupported,
                  "cannot merge " + adapter.path.string() +
                      ": layer_replication gives several layers one weight of the base, and each "
                      "its own update")
          .in_file(adapter.path.string());
  }

  void identify() {
    for (std::size_t i = 0; i < adapters_.size(); ++i) {
      record_.adapters.push_back(adapter_digest(options_.adapters[i].adapter, options_.threads));
      record_.weights.push_back(options_.adapters[i].weight);
    }
    record_.dtype = options_.dtype ? std::string(to_string(*options_.dtype)) : std::string();
    record_.compat = options_.is_safe_merge ? "safe_merge" : "merge";
    if (!options_.any_base) identity_.expect(active_);
    std::error_code ignored;
    if (options_.dry_run || stdfs::exists(options_.output, ignored))
      identity_.settle(options_.threads, sinks_);
    else
      identity_.look(options_.threads, sinks_);
    if (identity_.root()) record_.base_root = *identity_.root();
  }

  void require_output() const {
    try {
      require_absent(options_.output, options_.force, true);
    } catch (const Error& error) {
      if (options_.force || !stdfs::is_directory(options_.output)) throw;
      throw Error(ErrorKind::output,
                  "cannot write " + options_.output.string() + ": it exists and is " +
                      merging::state_of(options_.output, record_, options_.threads, sinks_))
          .in_file(options_.output.string())
          .with_hint(error.hint());
    }
  }

  // Tokens that an adapter adds need rows that the base does not have.
  void grow() {
    const auto indices = token_indices_of(active_);
    grown_ = grown_for(base_, indices);
    if (!grown_) return;
    std::uint64_t bytes = 0;
    for (const auto& [path, rows] : indices) {
      const Tensor* table = grown_->find(replay::stored_name(*grown_, path + ".weight"));
      if (table != nullptr) bytes += table->bytes.size();
    }
    if (bytes > options_.max_memory / 2)
      throw Error(ErrorKind::resources,
                  "cannot merge into " + base_.path.string() +
                      ": its vocabulary grows, and the new tables take " + std::to_string(bytes) +
                      " bytes, expected at most half of the " +
                      std::to_string(options_.max_memory) + " that --max-memory allows")
          .in_file(base_.path.string());
  }

  const Checkpoint& start() const { return grown_ ? *grown_ : base_; }

  void plan() {
    layout_ = merging::make_layout(active_, start(), options_.dtype, options_.as_safetensors);
    for (const std::string& name : layout_.untied) record_.untied[name] = start().aliases.at(name);
    merging::tie_again(options_.tied, layout_);
    if (grown_) {
      layout_.vocabulary = grown_->config->token_model()->vocab_size;
      layout_.notes.push_back("the vocabulary grows to " + std::to_string(*layout_.vocabulary) +
                              " rows for the tokens that the adapters add");
    }
    for (Adapter& adapter : adapters_) merging::drop_second_factors(adapter, layout_.form);
    plan_ = replay::make_plan(active_, start(), layout_.form);
    require_written();
    report_.untied = layout_.untied;
    report_.notes = layout_.notes;
    for (std::size_t i = 0; i < plan_.targets.size(); ++i) {
      const Target& target = plan_.targets[i];
      index_[target.base_name] = i;
      merging::require_memory(target, writing_);
      if (!is_changed(target)) {
        ++report_.copied;
        continue;
      }
      report_.weights.push_back({target.base_name,
                                 target.module_path,
                                 target.merged.dtype,
                                 target.merged.shape,
                                 !target.blocks.empty(),
                                 {},
                                 {},
                                 {}});
    }
    for (const merging::OutputFile& file : layout_.files)
      for (const std::string& name : file.tensors)
        if (!file.shared.contains(name)) report_.weight_bytes += layout_.bytes_of(name);
    files_ = merging::make_config(base_, active_, layout_, options_.dtype, report_.notes);
  }

  // All that has no merge, before anything is written.
  void require_written() const {
    std::vector<std::string> unsupported, misfits;
    for (const Target& target : plan_.targets) {
      if (!target.misshaped.empty()) misfits.push_back(target.base_name + ": " + target.misshaped);
      const std::string why = merging::why_not_written(target);
      if (!why.empty()) unsupported.push_back(target.base_name + ": " + why);
    }
    for (const std::string& name : plan_.missing)
      misfits.push_back(name + ": the base does not have it");
    constexpr std::size_t kShown = 5;
    if (!misfits.empty())
      throw Error(ErrorKind::incompatible, "cannot merge into " + base_.path.string() + ": " +
                                               rules::join_some(misfits, kShown))
          .in_file(base_.path.string());
    if (!unsupported.empty())
      throw Error(ErrorKind::unsupported, "cannot merge into " + base_.path.string() + ": " +
                                              rules::join_some(unsupported, kShown))
          .in_file(base_.path.string())
          .with_hint("load applies the adapter without merging it");
  }

  void list_files() {
    if (files_.config) report_.files.push_back({"config.json", files_.config->size()});
    for (const stdfs::path& file : files_.carried)
      report_.files.push_back({file.filename().string(), stdfs::file_size(file)});
    for (const merging::OutputFile& file : layout_.files) {
      const auto sources = sources_of(file, nullptr);
      report_.files.push_back(
          {file.name, file.is_torch ? 0 : safetensors_size(sources, &file.metadata)});
    }
    if (!layout_.index_name.empty()) report_.files.push_back({layout_.index_name, 0});
    report_.files.push_back({kBaseLockName, 0});
    if (!options_.approve) report_.files.push_back({merging::kRecordName, 0});
  }

  std::vector<TensorSource> sources_of(const merging::OutputFile& file, std::vector<Sums>* sums) {
    std::vector<TensorSource> sources;
    for (const std::string& name : file.tensors) {
      const Tensor& form = *layout_.form.find(name);
      TensorSource source{name, form.dtype, form.shape, {}};
      source.stream = [this, sums, name](const merging::ByteSink& out) {
        const std::size_t at = index_.at(replay::stored_name(layout_.form, name));
        const Target& target = plan_.targets[at];
        merging::Streams streams{out};
        digests_->listen(target, streams);
        (*sums)[at] = merging::write_target(target, writing_, streams);
        digests_->finish(target);
        done_ += layout_.bytes_of(name);
        sinks_.report(done_, report_.weight_bytes, "merging");
      };
      sources.push_back(std::move(source));
    }
    return sources;
  }

  void write() {
    require_space(options_.output, report_.weight_bytes);
    const auto stamps = stamps_of(base_);
    AtomicDirectory directory(options_.output, {options_.force, options_.file_system});
    std::vector<std::string> names;
    const auto put = [&](const std::string& name, std::string_view text) {
      directory.write(name, text);
      names.push_back(name);
    };
    if (files_.config) put("config.json", *files_.config);
    for (const stdfs::path& file : files_.carried) {
      const auto mapping = MappedFile::open(file);
      put(file.filename().string(),
          {reinterpret_cast<const char*>(mapping->bytes().data()), mapping->bytes().size()});
    }
    digests_.emplace(base_, layout_.form, !identity_.root(), writing_);
    std::vector<Sums> sums(plan_.targets.size());
    for (const merging::OutputFile& file : layout_.files) {
      auto target = directory.create(file.name);
      if (file.is_torch)
        write_torch_file(*target, sources_of(file, &sums), file.shared);
      else
        write_safetensors(*target, sources_of(file, &sums), &file.metadata);
      target->sync_and_close();
      names.push_back(file.name);
    }
    if (!layout_.index_name.empty()) put(layout_.index_name, index_text());
    if (stamps_of(base_) != stamps)
      throw Error(ErrorKind::malformed, "cannot merge into " + base_.path.string() +
                                            ": its files changed while they were read")
          .in_file(base_.path.string());
    digests_->settle();
    if (!identity_.root()) identity_.take(digests_->base());
    record_.base_root = *identity_.root();
    const Checkpoint written = open_written(directory);
    const BaseLock lock = digests_->merged(written);
    put(kBaseLockName, dump_base_lock(lock));
    record_.root = lock.root;
    if (options_.approve)
      options_.approve(written, lock, report_.weights);
    else
      put(merging::kRecordName, dump_json(merging::to_json(record_)) + "\n");
    for (const std::string& name : names)
      report_.files.push_back({name, stdfs::file_size(directory.staging_path() / name)});
    sinks_.throw_if_cancelled();
    directory.commit();
    report_.root = lock.root;
    sum_up(sums);
  }

  std::string index_text() {
    JsonObject weight_map;
    std::uint64_t bytes = 0;
    for (const merging::OutputFile& file : layout_.files)
      for (const std::string& name : file.tensors) {
        weight_map[name] = file.name;
        bytes += layout_.bytes_of(name);
      }
    std::uint64_t parameters = 0;
    for (const auto& [name, tensor] : layout_.form.tensors)
      parameters += static_cast<std::uint64_t>(tensor.numel());
    JsonObject metadata = layout_.index_metadata;
    metadata["total_size"] = bytes;
    if (metadata.find("total_parameters") != nullptr &&
        (!layout_.untied.empty() || layout_.is_tied_again || layout_.vocabulary))
      metadata["total_parameters"] = parameters;
    return dump_json(
               JsonObject{{"metadata", std::move(metadata)}, {"weight_map", std::move(weight_map)}},
               kPythonConfigStyle) +
           "\n";
  }

  Checkpoint open_written(const AtomicDirectory& directory) const {
    const stdfs::path weights =
        layout_.index_name.empty() ? layout_.files.front().name : layout_.index_name;
    const stdfs::path source =
        files_.config ? directory.staging_path() : directory.staging_path() / weights;
    return open_checkpoint(source.string());
  }

  void sum_up(const std::vector<Sums>& sums) {
    Sums total;
    for (MergedWeight& weight : report_.weights) {
      const Sums& own = sums[index_.at(weight.base_name)];
      describe(own, weight.changed, weight.survived, weight.cosine);
      total.add(own);
    }
    describe(total, report_.changed, report_.survived, report_.cosine);
    report_.is_lossy = report_.survived && is_lossy_merge(*report_.survived, *report_.cosine);
  }

  const MergeOptions& options_;
  const Sinks& sinks_;
  const Checkpoint& base_;
  std::vector<Adapter> adapters_;
  std::vector<const Adapter*> active_;
  merging::BaseIdentity identity_;
  std::optional<Checkpoint> grown_;
  merging::Record record_;
  merging::Layout layout_;
  merging::WriterOptions writing_;
  replay::Plan plan_;
  std::map<std::string, std::size_t> index_;
  merging::SideFiles files_;
  std::uint64_t done_ = 0;
  MergeReport report_;
  std::optional<merging::PassDigests> digests_;  // last: its threads read targets and layout
};

}  // namespace

MergeReport merge(const MergeOptions& options, const Sinks& sinks) {
  return Merging(options, sinks).run();
}

}  // namespace lora
