#include "lora/ops/resize.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lora/adapter/manifest.h"
#include "lora/adapter/strength.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/format/safetensors.h"
#include "ops/rank_plan.h"
#include "ops/rules/rule.h"
#include "ops/site_blocks.h"

namespace lora {
namespace {

using numbers::SplitFactors;
using numbers::UpdateSvd;

struct Block {
  std::size_t site;
  UpdateFactor factor;
  std::vector<double> values;    // singular values
  std::optional<UpdateSvd> svd;  // where it is small enough to be kept
};

struct Site {
  const LoraModule* module;
  std::size_t group = 0;
  std::vector<std::size_t> blocks;
};

struct Group {
  std::string path;  // that the patterns see
  std::int64_t step = 1, rank_before = 0, rank_after = 0, most = 0;
};

class Resizing {
 public:
  explicit Resizing(const ResizeOptions& options)
      : options_(options), adapter_(*options.adapter), name_(adapter_.path.string()) {}

  ResizeReport run() {
    check_request();
    require_source("resize", adapter_, options_.output);
    refuse_fixed();
    take_sites();
    require_ranks();
    decompose();
    choose_ranks();
    const auto factors = new_factors();
    write(factors);
    describe();
    return std::move(report_);
  }

 private:
  [[noreturn]] void refuse(ErrorKind kind, const std::string& what, std::string hint = {}) const {
    throw Error(kind, "cannot resize " + name_ + ": " + what)
        .in_file(name_)
        .with_hint(std::move(hint));
  }

  bool has_fixed_ranks() const { return options_.rank || !options_.rank_pattern.empty(); }

  void check_request() const {
    const int goals =
        (has_fixed_ranks() ? 1 : 0) + (options_.energy ? 1 : 0) + (options_.budget ? 1 : 0);
    if (goals != 1)
      throw Error(ErrorKind::usage,
                  "resize got " + std::string(goals == 0 ? "no goal" : "several goals") +
                      ", expected --rank and/or --rank-pattern, or --energy, or --budget");
    if (options_.energy && !(*options_.energy > 0 && *options_.energy <= 1))
      throw Error(ErrorKind::usage, "--energy is " + rules::figure(*options_.energy) +
                                        ", expected a share above 0 and up to 1");
    const auto require_positive = [](std::int64_t rank) {
      if (rank < 1)
        throw Error(ErrorKind::usage,
                    "a rank is " + std::to_string(rank) + ", expected at least 1");
    };
    if (options_.rank) require_positive(*options_.rank);
    for (const auto& [key, rank] : options_.rank_pattern) require_positive(rank);
  }

  // Where the rank is more than the number of rows of a factor.
  void refuse_fixed() const {
    if (const std::string init = base_changing_init(adapter_.config); !init.empty())
      refuse(ErrorKind::unsupported,
             "its initialisation " + init +
                 " takes the first factors off the base, and they have "
                 "the old rank",
             "make it a plain LoRA first: lora convert " + name_ + " --init-adapter DIR -o PLAIN");
    std::set<std::string> reasons;
    for (const LoraModule& module : adapter_.modules)
      if (const std::string why = why_fixed(module); !why.empty()) reasons.insert(why);
    for (const auto& [key, tensor] : adapter_.tensors)
      if (const ParsedKey parsed = parse_key(key);
          parsed.role == KeyRole::variant && parsed.parameter != "lora_diag")
        reasons.insert(parsed.parameter + " belongs to a variant whose tensors follow the rank");
    if (!reasons.empty())
      refuse(ErrorKind::unsupported, rules::join_some({reasons.begin(), reasons.end()}));
    if (adapter_.modules.empty())
      refuse(ErrorKind::unsupported, "it has token rows and no factors");
  }

  void take_sites() {
    std::map<std::string, std::size_t> groups;
    for (const LoraModule& module : adapter_.modules) {
      // A tied head follows its embedding; only its bytes count.
      const LoraModule* leader = module.tied_to.empty() ? nullptr : adapter_.find(module.tied_to);
      const auto [place, is_new] =
          groups.emplace(pattern_path(leader != nullptr ? *leader : module), groups_.size());
      if (is_new) {
        groups_.push_back({place->first, rank_step(module), module.rank, module.rank, 0});
        plan_.emplace_back();
      }
      Group& group = groups_[place->second];
      const std::int64_t steps = module.rank / rank_step(module);
      plan_[place->second].step_bytes +=
          (bytes_after(module.a) + bytes_after(module.b)) / static_cast<std::uint64_t>(steps);
      if (leader != nullptr) continue;
      const MatrixShape shape = update_shape(module);
      group.most = std::max({group.most, module.rank, std::min(shape.rows, shape.columns)});
      sites_.push_back({&module, place->second, {}});
      for (UpdateFactor& factor : blocks_of(module)) {
        sites_.back().blocks.push_back(blocks_.size());
        blocks_.push_back({sites_.size() - 1, std::move(factor), {}, {}});
      }
    }
  }

  // A factor that is not recomputed keeps its own.
  DType dtype_after(const Tensor& factor) const {
    return options_.output.dtype.value_or(factor.dtype == DType::f64 ? DType::f64 : DType::f32);
  }

  std::uint64_t bytes_after(const Tensor& factor) const {
    return static_cast<std::uint64_t>(factor.numel()) * bits_of(dtype_after(factor)) / 8;
  }

  // Ranks that were asked for by number, before anything is computed.
  void require_ranks() {
    if (!has_fixed_ranks()) return;
    AdapterConfig wanted;
    constexpr std::int64_t kKeeps = -1;
    wanted.rank = options_.rank.value_or(kKeeps);
    for (const auto& [key, rank] : options_.rank_pattern)
      wanted.rank_pattern.emplace_back(key, static_cast<double>(rank));
    const PatternTable table(wanted);
    std::vector<std::string> paths, faults;
    std::int64_t most = 0;
    for (const Group& group : groups_) {
      paths.push_back(group.path);
      most = std::max(most, group.most);
    }
    const std::vector<std::string> dead = table.dead_keys(paths);
    if (!dead.empty())
      refuse(ErrorKind::usage, "--rank-pattern matches no module: " + rules::join_some(dead),
             "lora inspect lists the modules");
    for (Group& group : groups_) {
      const std::int64_t rank = table.rank_of(group.path);
      if (rank == kKeeps) continue;
      if (rank > most)
        faults.push_back("rank " + std::to_string(rank) + " of " + group.path +
                         " is above the full rank of every module, " + std::to_string(most));
      if (rank % group.step != 0)
        faults.push_back("rank " + std::to_string(rank) + " of " + group.path +
                         " is no multiple of its " + std::to_string(group.step) + " groups");
      group.rank_after = rank;
    }
    if (!faults.empty()) refuse(ErrorKind::usage, rules::join_some(faults, 3));
  }

  void decompose() {
    std::vector<std::size_t> order(blocks_.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) {
      return work_of(blocks_[x]) > work_of(blocks_[y]);
    });
    parallel_for(order.size(), options_.output.threads, [&](std::size_t i) {
      Block& block = blocks_[order[i]];
      UpdateSvd svd({block.factor});
      block.values.assign(svd.values().begin(), svd.values().end());
      if (svd.is_from_gram()) block.svd = std::move(svd);
    });
  }

  static std::int64_t work_of(const Block& block) {
    return block.factor.a.numel() + block.factor.b.numel();
  }

  double energy_of(const Block& block, std::size_t step) const {
    if (step >= block.values.size()) return 0;
    const double value = block.values[step];
    return value * value * energy_factor(*sites_[block.site].module);
  }

  void choose_ranks() {
    for (std::size_t i = 0; i < groups_.size(); ++i)
      plan_[i].energies.assign(static_cast<std::size_t>(groups_[i].rank_before / groups_[i].step),
                               0.0);
    for (const Block& block : blocks_) {
      std::vector<double>& energies = plan_[sites_[block.site].group].energies;
      for (std::size_t step = 0; step < energies.size(); ++step)
        energies[step] += energy_of(block, step);
    }
    if (has_fixed_ranks()) return;
    const std::vector<std::int64_t> steps = options_.energy
                                                ? steps_for_energy(plan_, *options_.energy)
                                                : steps_for_budget(plan_, factor_budget());
    for (std::size_t i = 0; i < groups_.size(); ++i)
      groups_[i].rank_after = steps[i] * groups_[i].step;
  }

  // What of the budget is left for factors: the header at its longest and all other tensors go
  // before.
  std::uint64_t factor_budget() const {
    const std::uint64_t whole = file_bytes_at_full_rank();
    std::uint64_t factors = 0;
    for (const LoraModule& module : adapter_.modules)
      factors += bytes_after(module.a) + bytes_after(module.b);
    const std::uint64_t fixed = whole - factors;
    const std::uint64_t least = fixed + least_bytes(plan_);
    if (*options_.budget < least)
      refuse(ErrorKind::usage,
             "--budget is " + std::to_string(*options_.budget) +
                 " bytes, and rank 1 everywhere takes " + std::to_string(least),
             options_.output.dtype ? std::string() : "--dtype bf16 halves the factors");
    return *options_.budget - fixed;
  }

  // Only dtypes and shapes are looked at.
  std::uint64_t file_bytes_at_full_rank() const {
    TensorMap tensors = adapter_.tensors;
    for (auto& [key, tensor] : tensors) {
      const KeyRole role = parse_key(key).role;
      if (role == KeyRole::lora_a || role == KeyRole::lora_b || role == KeyRole::embedding_a ||
          role == KeyRole::embedding_b)
        tensor.dtype = dtype_after(tensor);
    }
    return file_bytes(tensors, options_.output.dtype);
  }

  static std::uint64_t file_bytes(const TensorMap& tensors, std::optional<DType> dtype) {
    std::vector<TensorSource> sources;
    for (const auto& [key, tensor] : tensors)
      sources.push_back(
          {key, dtype && is_float(tensor.dtype) ? *dtype : tensor.dtype, tensor.shape, {}});
    return safetensors_size(sources, &pytorch_metadata());
  }

  // By site, so that wide numbers never stand there for more sites than threads.
  std::map<std::string, SiteFactors> new_factors() {
    std::vector<const Site*> changed;
    for (const Site& site : sites_) {
      const Group& group = groups_[site.group];
      if (group.rank_after != group.rank_before) changed.push_back(&site);
    }
    std::stable_sort(changed.begin(), changed.end(), [](const Site* x, const Site* y) {
      return x->module->a.numel() + x->module->b.numel() >
             y->module->a.numel() + y->module->b.numel();
    });
    std::vector<SiteFactors> made(changed.size());
    parallel_for(changed.size(), options_.output.threads,
                 [&](std::size_t i) { made[i] = factors_of(*changed[i]); });
    std::map<std::string, SiteFactors> factors;
    for (std::size_t i = 0; i < changed.size(); ++i)
      factors[changed[i]->module->module_path] = std::move(made[i]);
    return factors;
  }

  SiteFactors factors_of(const Site& site) {
    const Group& group = groups_[site.group];
    if (group.rank_after > group.rank_before) return padded(*site.module, group.rank_after);
    std::vector<SplitFactors> split;
    for (const std::size_t at : site.blocks) {
      Block& block = blocks_[at];
      if (!block.svd) block.svd.emplace(std::vector<UpdateFactor>{block.factor});
      split.push_back(
          split_factors(*block.svd, group.rank_after / group.step, block.factor.scaling));
      block.svd.reset();
    }
    return joined(*site.module, split);
  }

  void write(const std::map<std::string, SiteFactors>& factors) {
    Operation operation{
        "resize",
        parameters(),
        {lineage_of(adapter_, read_manifest(adapter_.directory()), options_.output.threads)}};
    AdapterConfig config = with_strengths(adapter_, factors);
    settle_init(config);
    report_.result = write_derived(adapter_, std::move(config), with_factors(adapter_, factors),
                                   operation, options_.output);
    report_.file_bytes = file_bytes(report_.result.adapter.tensors, {});
    for (const auto& [key, tensor] : adapter_.tensors) report_.bytes_before += tensor.bytes.size();
  }

  // PEFT sets a layer up before it loads it, and refuses to do so orthogonally at an odd rank. MiCA
  // freezes a B of singular vectors of the base, which the new one is not.
  void settle_init(AdapterConfig& config) const {
    const std::string* init = config.init_lora_weights.as_string();
    if (init == nullptr) return;
    const bool is_odd = std::any_of(groups_.begin(), groups_.end(),
                                    [](const Group& group) { return group.rank_after % 2 != 0; });
    const bool is_cut = std::any_of(groups_.begin(), groups_.end(), [](const Group& group) {
      return group.rank_after < group.rank_before;
    });
    if ((*init == "orthogonal" && is_odd) || (*init == "mica" && is_cut))
      config.init_lora_weights = true;
  }

  JsonObject parameters() const {
    JsonObject parameters;
    if (options_.rank) parameters["rank"] = *options_.rank;
    if (!options_.rank_pattern.empty()) {
      JsonObject pattern;
      for (const auto& [key, rank] : options_.rank_pattern) pattern[key] = rank;
      parameters["rank_pattern"] = std::move(pattern);
    }
    if (options_.energy) parameters["energy"] = *options_.energy;
    if (options_.budget) parameters["budget"] = *options_.budget;
    if (options_.output.dtype) parameters["dtype"] = to_string(*options_.output.dtype);
    return parameters;
  }

  void describe() {
    double all = 0, all_kept = 0;
    std::int64_t zero = 0, grown = 0;
    for (const Site& site : sites_) {
      const Group& group = groups_[site.group];
      double energy = 0, kept = 0;
      for (const std::size_t at : site.blocks)
        for (std::size_t step = 0; step < blocks_[at].values.size(); ++step) {
          const double own = energy_of(blocks_[at], step);
          energy += own;
          if (static_cast<std::int64_t>(step) < group.rank_after / group.step) kept += own;
        }
      all += energy;
      all_kept += kept;
      zero += energy == 0 ? 1 : 0;
      grown += group.rank_after > group.rank_before ? 1 : 0;
      report_.modules.push_back({site.module->module_path, group.rank_before, group.rank_after,
                                 std::sqrt(energy), energy == 0 ? 1 : kept / energy,
                                 std::sqrt(std::max(0.0, energy - kept))});
    }
    report_.kept = all == 0 ? 1 : all_kept / all;
    std::vector<std::string>& notes = report_.result.notes;
    if (zero != 0)
      notes.push_back("the update of " + std::to_string(zero) + " of " +
                      std::to_string(sites_.size()) + " modules is zero");
    if (grown != 0)
      notes.push_back(std::to_string(grown) + (grown == 1 ? " module is" : " modules are") +
                      " padded with zeros: the update is the same bit for bit, and the new ranks "
                      "learn nothing in further training, their gradient is zero");
    if (adapter_.config.use_dora)
      notes.push_back("DoRA magnitudes stay as they are; norms follow the new update");
  }

  const ResizeOptions& options_;
  const Adapter& adapter_;
  std::string name_;
  std::vector<Group> groups_;
  std::vector<RankGroup> plan_;  // of each group
  std::vector<Site> sites_;
  std::vector<Block> blocks_;
  ResizeReport report_;
};

}  // namespace

ResizeReport resize(const ResizeOptions& options) { return Resizing(options).run(); }

}  // namespace lora
