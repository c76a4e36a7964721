#include "lora/ops/extract.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>

#include "lora/adapter/manifest.h"
#include "lora/base/atomic_write.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/ops/fit.h"
#include "ops/adapter_digest.h"
#include "ops/background.h"
#include "ops/base_record.h"
#include "ops/extract/budget.h"
#include "ops/extract/digests.h"
#include "ops/extract/factors.h"
#include "ops/extract/result.h"
#include "ops/extract/survey.h"
#include "ops/init_base_plan.h"
#include "ops/lineage.h"
#include "ops/merge/finite.h"
#include "ops/output_place.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

using extraction::Factors;
using extraction::InputDigests;
using extraction::RankWish;
using extraction::Site;

double relative(double squares, double of) { return of > 0 ? std::sqrt(squares / of) : 0; }

class Extracting {
 public:
  Extracting(const ExtractOptions& options, const Sinks& sinks)
      : options_(options), sinks_(sinks), base_(*options.base), tuned_(*options.tuned) {
    report_.output = options.output;
  }

  ExtractReport run() {
    check_request();
    if (!options_.dry_run) require_absent(options_.output, options_.force, true);
    modules_ = list_modules(base_);
    survey_ = extraction::survey(options_, modules_, sinks_);
    report_.unchanged = static_cast<std::int64_t>(survey_.unchanged.size());
    report_.left_out = survey_.left_out;
    carried_ = extraction::carried_of(survey_, tuned_);
    require_finite_carried();
    choose_ranks();
    factor_all();
    assemble();
    if (!options_.dry_run) begin_writing();
    record();
    if (!options_.dry_run) finish_writing();
    return std::move(report_);
  }

 private:
  void check_request() const {
    const int wishes = int(options_.rank.has_value()) + int(options_.energy.has_value()) +
                       int(options_.budget.has_value());
    const auto refuse = [](const std::string& what) { throw Error(ErrorKind::usage, what); };
    if (wishes != 1)
      refuse("extract got " + std::to_string(wishes) +
             " of --rank, --energy and --budget, expected exactly one");
    if (options_.rank && *options_.rank < 1)
      refuse("--rank is " + std::to_string(*options_.rank) + ", expected at least 1");
    if (options_.energy && !(*options_.energy > 0 && *options_.energy <= 1))
      refuse("--energy is " + std::to_string(*options_.energy) +
             ", expected more than 0 and at most 1");
    if (options_.output.empty()) refuse("extract got an empty output path");
    for (const Checkpoint* input : {&base_, &tuned_}) {
      const char* what = input == &base_ ? "the base" : "the tuned checkpoint";
      require_apart(options_.output, input->path, "extract to", what);
      for (const stdfs::path& file : input->files)
        require_apart(options_.output, file, "extract to", what);
      refuse_quantised(*input, "extract from");
    }
  }

  void require_finite_carried() const {
    for (const CarriedPart& part : carried_.parts)
      for (const Checkpoint* input : {&base_, &tuned_})
        if (const Tensor* tensor = input->find(part.name);
            tensor != nullptr && !merging::is_finite(tensor->dtype, tensor->bytes))
          throw Error(ErrorKind::malformed, "cannot extract from " + part.name + ": the " +
                                                (input == &base_ ? "base's" : "tuned") +
                                                " tensor holds NaN or infinity")
              .in_tensor(part.name);
  }

  void choose_ranks() {
    if (!options_.budget) {
      wishes_.assign(survey_.sites.size(), {options_.rank, options_.energy});
      return;
    }
    std::uint64_t fixed = 0;
    for (const auto& [key, tensor] : carried_.tensors) fixed += tensor.bytes.size();
    for (const std::int64_t rank :
         extraction::spend(survey_.sites, *options_.budget, fixed, options_, sinks_))
      wishes_.push_back({rank, std::nullopt});
  }

  void factor_all() {
    const std::vector<Site>& sites = survey_.sites;
    factors_.resize(sites.size());
    std::uint64_t total = 0;
    for (const Site& site : sites) total += static_cast<std::uint64_t>(site.base->numel());
    std::atomic<std::uint64_t> done{0};
    InputDigests& digests = digests_.emplace(base_, tuned_, survey_);
    const auto factor = [&](std::size_t i, extraction::WorkSpace& space) {
      sinks_.throw_if_cancelled();
      const Site& site = sites[i];
      // A budget may leave a module without anything.
      if (wishes_[i].rank != std::int64_t{0})
        factors_[i] = extraction::factor(site.base_name, *site.base, *site.tuned, wishes_[i],
                                         site.is_in_out(), options_.dtype, space);
      digests.hash_site(site);
      drop_pages(base_.mappings, site.base->bytes);
      drop_pages(tuned_.mappings, site.tuned->bytes);
      done += static_cast<std::uint64_t>(site.base->numel());
      sinks_.report(done, total, "factoring");
    };
    extraction::for_sites(sites, options_, factor, digests.others(),
                          [&](std::size_t i) { digests.hash_other(i, sinks_); });
  }

  // PEFT builds no adapter without a LoRA layer.
  void require_site() {
    if (std::any_of(factors_.begin(), factors_.end(),
                    [](const Factors& factors) { return factors.rank != 0; }))
      return;
    for (const ModuleInfo& module : modules_) {
      const std::string name = module.module_path + ".weight";
      const bool is_saved =
          std::any_of(survey_.saved.begin(), survey_.saved.end(), [&](const std::string& path) {
            return module.module_path == path || module.module_path.starts_with(path + ".");
          });
      const Tensor* weight = base_.find(name);
      if (module.kind != LayerKind::linear || module.is_output_head || is_saved ||
          weight == nullptr || weight->shape.size() != 2)
        continue;
      survey_.sites = {{module.module_path, name, module.kind, weight, tuned_.find(name), 0}};
      const std::size_t width = bits_of(options_.dtype) / 8;
      const auto zeros = [&](std::int64_t rows, std::int64_t columns) {
        return Tensor::from_bytes(
            options_.dtype, {rows, columns},
            std::vector<std::byte>(static_cast<std::size_t>(rows * columns) * width));
      };
      factors_.assign(1, {});
      factors_[0].a = zeros(1, weight->shape[1]);
      factors_[0].b = zeros(weight->shape[0], 1);
      factors_[0].rank = 1;
      report_.notes.push_back("no linear layer got an update; " + module.module_path +
                              " has one of zeros, because PEFT wants a LoRA layer");
      return;
    }
    throw Error(ErrorKind::unsupported,
                "cannot extract to an adapter: no linear layer can hold LoRA factors");
  }

  void assemble() {
    summarise();
    require_site();
    AdapterConfig config = extraction::config_of(survey_, factors_, base_, modules_);
    config.base_model_name_or_path = options_.base_name;
    TensorMap tensors = std::move(carried_.tensors);
    for (std::size_t i = 0; i < survey_.sites.size(); ++i) {
      if (factors_[i].rank == 0) continue;
      tensors[extraction::key_of(survey_.sites[i], true)] = std::move(factors_[i].a);
      tensors[extraction::key_of(survey_.sites[i], false)] = std::move(factors_[i].b);
    }
    report_.carried = std::move(carried_.parts);
    report_.adapter = make_adapter(std::move(config), std::move(tensors), options_.output);
    for (const auto& [key, tensor] : report_.adapter.tensors) report_.bytes += tensor.bytes.size();
    require_fit(report_.adapter, base_);
  }

  void summarise() {
    double squares = 0, errors = 0, least = 0;
    std::int64_t capped = 0, empty = 0;
    report_.is_rounding = true;
    for (std::size_t i = 0; i < factors_.size(); ++i) {
      const Factors& factors = factors_[i];
      if (wishes_[i].rank == std::int64_t{0}) {
        ++empty;
        continue;
      }
      if (factors.rank == 0) continue;
      if (options_.rank && *options_.rank > factors.full_rank) ++capped;
      report_.modules.push_back({survey_.sites[i].module_path, survey_.sites[i].base_name,
                                 factors.rank, factors.full_rank, std::sqrt(factors.squared_norm),
                                 relative(factors.squared_error, factors.squared_norm),
                                 relative(factors.least_squared_error, factors.squared_norm),
                                 factors.is_exact, factors.is_rounding});
      squares += factors.squared_norm;
      errors += factors.squared_error;
      least += factors.least_squared_error;
      report_.is_rounding = report_.is_rounding && factors.is_rounding;
    }
    report_.error = relative(errors, squares);
    report_.least = relative(least, squares);
    if (report_.modules.empty()) report_.is_rounding = false;
    if (capped != 0)
      report_.notes.push_back(std::to_string(capped) + " modules have a full rank below " +
                              std::to_string(*options_.rank) + " and get that one");
    if (empty != 0)
      report_.notes.push_back("the budget leaves " + std::to_string(empty) +
                              " changed modules without factors");
  }

  void record() {
    const BaseLock lock = digests_->base_lock(options_.threads, sinks_);
    report_.base_root = lock.root.hex();
    manifest_ = make_manifest(report_.adapter, options_.threads);
    record_base(manifest_, report_.adapter, base_, lock);
    Operation operation{"extract", {}, {}};
    if (options_.rank) operation.parameters["rank"] = *options_.rank;
    if (options_.energy) operation.parameters["energy"] = *options_.energy;
    if (options_.budget) operation.parameters["budget"] = *options_.budget;
    if (!options_.exclude_modules.empty())
      operation.parameters["exclude_modules"] =
          JsonArray(options_.exclude_modules.begin(), options_.exclude_modules.end());
    operation.parameters["dtype"] = to_string(options_.dtype);
    operation.inputs.push_back({lock.root, {}, 1, "base"});
    operation.inputs.push_back(
        {digests_->tuned_root(lock, options_.threads, sinks_), {}, 1, "tuned"});
    manifest_.history =
        history_after(operation, adapter_digest(report_.adapter, manifest_.tensors));
  }

  // The disk works while the digests are made.
  void begin_writing() {
    require_space(options_.output, report_.bytes);
    AtomicDirectory& directory =
        directory_.emplace(options_.output, WriteOptions{options_.force, options_.file_system});
    writing_.emplace(1, false).add(
        [&] { write_adapter(directory, report_.adapter.config, report_.adapter.tensors); });
  }

  void finish_writing() {
    writing_->settle();
    write_manifest(*directory_, manifest_);
    sinks_.throw_if_cancelled();
    directory_->commit();
  }

  const ExtractOptions& options_;
  const Sinks& sinks_;
  const Checkpoint& base_;
  const Checkpoint& tuned_;
  ModuleList modules_;
  extraction::Survey survey_;
  extraction::Carried carried_;
  std::vector<RankWish> wishes_;
  std::vector<Factors> factors_;
  std::optional<InputDigests> digests_;
  Manifest manifest_;
  ExtractReport report_;
  std::optional<AtomicDirectory> directory_;
  std::optional<Background> writing_;  // ends before what it reads and writes
};

}  // namespace

ExtractReport extract(const ExtractOptions& options, const Sinks& sinks) {
  return Extracting(options, sinks).run();
}

}  // namespace lora
