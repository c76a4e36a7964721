#include "lora/ops/combine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <numeric>

#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "ops/background.h"
#include "ops/combine/assemble.h"
#include "ops/combine/carried.h"
#include "ops/combine/recipe.h"
#include "ops/combine/sites.h"
#include "ops/derived_adapter.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

using combining::Carried;
using combining::Combination;
using combining::Matrix;
using combining::Recipe;
using combining::Site;

[[noreturn]] void refuse_usage(const std::string& what) { throw Error(ErrorKind::usage, what); }

class Combining {
 public:
  Combining(const CombineOptions& options, const Sinks& sinks)
      : options_(options), sinks_(sinks), hashing_(options.threads == 1 ? 0 : 1, true) {}

  CombineReport run() {
    choose_method();
    check_request();
    take_adapters();
    sites_ = combining::sites_of(adapters_);
    carried_ = combining::carry_over(adapters_, sites_, saved_from_);
    append(carried_.notes);
    require_method_fits();
    compute();
    sum_up();
    write();
    return std::move(report_);
  }

 private:
  void append(const std::vector<std::string>& notes) {
    report_.notes.insert(report_.notes.end(), notes.begin(), notes.end());
  }

  void choose_method() {
    recipe_.method = options_.method;
    if (options_.compat && options_.adapters.size() == 1) recipe_.method = CombineMethod::linear;
    recipe_.rank = options_.rank;
    recipe_.energy = options_.energy;
    recipe_.density = options_.density.value_or(1);
    recipe_.majority_sign = options_.majority_sign;
    recipe_.seed = options_.seed;
    recipe_.compat = options_.compat;
    report_.method = recipe_.method;
    report_.output = options_.output;
  }

  void check_request() const {
    const CombineMethod method = options_.method;
    const std::string name(to_string(method));
    if (options_.adapters.empty()) refuse_usage("combine got no adapter");
    if (options_.output.empty()) refuse_usage("combine got an empty output path");
    const bool is_bent = method == CombineMethod::slerp || method == CombineMethod::knots;
    if (options_.compat && is_bent)
      refuse_usage("PEFT has no method " + name + ", --peft-compat has nothing to reproduce");
    if (options_.rank && options_.energy) refuse_usage("--rank and --energy exclude each other");
    if (options_.compat && options_.energy)
      refuse_usage("PEFT knows no --energy, expected --rank or nothing with --peft-compat");
    if ((options_.rank || options_.energy) && !combining::has_free_rank(method))
      refuse_usage("the rank of " + name +
                   " follows from the adapters: --rank and --energy are for slerp, knots, svd and "
                   "the methods that end in svd");
    if (options_.rank && *options_.rank < 1) refuse_usage("--rank must be at least 1");
    if (options_.energy && !(*options_.energy > 0 && *options_.energy <= 1))
      refuse_usage("--energy must be above 0 and at most 1");
    const bool may_be_sparse = combining::is_sparse(method) || method == CombineMethod::knots;
    if (combining::is_sparse(method) && !options_.density)
      refuse_usage(name + " needs --density, the share of values to keep");
    if (options_.density && !may_be_sparse) refuse_usage(name + " keeps all values: no --density");
    if (options_.density && !(*options_.density > 0 && *options_.density <= 1))
      refuse_usage("--density must be above 0 and at most 1");
    if (options_.saved_from &&
        (*options_.saved_from < 1 || *options_.saved_from > options_.adapters.size()))
      refuse_usage("--saved-from counts the adapters from 1 to " +
                   std::to_string(options_.adapters.size()) + ", found " +
                   std::to_string(*options_.saved_from));
    check_weights();
  }

  void check_weights() const {
    double largest = 0;
    double sum = 0;
    bool is_negative = false;
    for (const WeightedAdapter& one : options_.adapters) {
      if (!std::isfinite(one.weight)) refuse_usage("a weight must be finite");
      largest = std::max(largest, std::fabs(one.weight));
      sum += one.weight;
      is_negative = is_negative || one.weight < 0;
    }
    if (largest == 0) refuse_usage("every weight is 0: the result would do nothing");
    if (options_.method != CombineMethod::slerp) return;
    if (options_.adapters.size() != 2)
      refuse_usage("slerp lies between two adapters, found " +
                   std::to_string(options_.adapters.size()));
    if (is_negative || !(sum > 0))
      refuse_usage("slerp takes weights that are not negative: t = w2 / (w1 + w2)");
  }

  // Zero times an update is none. PEFT lets such an adapter vote on signs and count in means, and
  // slerp has its end points.
  bool takes_part(const WeightedAdapter& one) const {
    return one.weight != 0 || options_.compat || options_.method == CombineMethod::slerp;
  }

  void take_adapters() {
    derived_.output = options_.output;
    derived_.dry_run = options_.dry_run;
    derived_.write = {options_.force, options_.file_system};
    derived_.threads = options_.threads;
    operation_.inputs.resize(options_.adapters.size());
    for (std::size_t i = 0; i < options_.adapters.size(); ++i) {
      const WeightedAdapter& one = options_.adapters[i];
      require_source("combine", one.adapter, derived_);
      hashing_.add([&one, &input = operation_.inputs[i]] {
        input = lineage_of(one.adapter, read_manifest(one.adapter.directory()), 1);
        input.weight = one.weight;
      });
      if (!takes_part(one)) {
        report_.notes.push_back(one.adapter.path.string() + " has weight 0 and takes no part");
        continue;
      }
      if (options_.saved_from == i + 1) saved_from_ = adapters_.size();
      positions_.push_back(i);
      adapters_.push_back(&one.adapter);
      recipe_.weights.push_back(one.weight);
    }
    if (options_.saved_from && !saved_from_)
      refuse_usage("--saved-from names an adapter of weight 0, which takes no part");
    require_one_base();
  }

  void require_one_base() {
    const combining::BaseDoubts doubts = combining::base_doubts(adapters_);
    append(doubts.suspicions);
    if (doubts.contradictions.empty()) return;
    const std::string which = rules::join_some(doubts.contradictions);
    if (!options_.any_base)
      throw Error(ErrorKind::incompatible, "cannot combine adapters of different bases: " + which)
          .with_hint(
              "an update belongs to the weights that it was trained on; --any-base combines "
              "them all the same");
    report_.notes.push_back("the result records no base: " + which);
    derived_.keeps_base_record = false;
  }

  void require_method_fits() const {
    const std::string name(to_string(recipe_.method));
    std::vector<std::string> unequal, with_bias, parameters;
    for (const Site& site : sites_) {
      std::string ranks;
      bool is_equal = true;
      for (const combining::Part& part : site.parts) {
        ranks += (ranks.empty() ? "" : " and ") + std::to_string(part.module->rank);
        is_equal = is_equal && part.module->rank == site.shape_of().rank;
        if (part.module->bias) with_bias.push_back(site.module_path);
      }
      if (!is_equal) unequal.push_back(site.module_path + " (" + ranks + ")");
      if (site.shape_of().kind == LayerKind::parameter) parameters.push_back(site.module_path);
    }
    if (combining::needs_equal_ranks(recipe_.method) && !unequal.empty())
      throw Error(ErrorKind::incompatible,
                  name + " adds factors of one rank, found others: " + rules::join_some(unequal))
          .with_hint(
              "cat and svd are exact for any ranks; the other methods have a form that ends "
              "in _svd");
    const bool adds_biases =
        combining::is_linear(recipe_.method) || recipe_.method == CombineMethod::linear;
    if (!with_bias.empty() && !adds_biases)
      throw Error(ErrorKind::unsupported, name + " says nothing about biases of B (lora_bias): " +
                                              rules::join_some(with_bias))
          .with_hint("cat, svd, slerp and linear add them");
    if (options_.compat && !parameters.empty())
      throw Error(ErrorKind::unsupported,
                  "PEFT does not combine updates of bare parameters (target_parameters): " +
                      rules::join_some(parameters));
    if (recipe_.compat) require_peft_rank();
  }

  // One rank for the whole adapter, from the configurations.
  void require_peft_rank() const {
    if (!combining::needs_equal_ranks(recipe_.method)) return;
    for (const Adapter* adapter : adapters_)
      if (combining::peft_rank(adapter->config) != combining::peft_rank(adapters_[0]->config))
        throw Error(ErrorKind::incompatible,
                    "PEFT's " + std::string(to_string(recipe_.method)) +
                        " needs adapters of one rank, found " +
                        std::to_string(combining::peft_rank(adapters_[0]->config)) + " and " +
                        std::to_string(combining::peft_rank(adapter->config)));
  }

  std::int64_t rank_in_peft() const {
    std::int64_t sum = 0;
    std::int64_t largest = 0;
    for (const Adapter* adapter : adapters_) {
      sum += combining::peft_rank(adapter->config);
      largest = std::max(largest, combining::peft_rank(adapter->config));
    }
    if (recipe_.method == CombineMethod::cat) return sum;
    return combining::has_free_rank(recipe_.method) ? options_.rank.value_or(largest) : largest;
  }

  void compute() {
    const std::size_t count = sites_.size();
    results_.resize(count);
    if (recipe_.compat) {
      peft_rank_ = rank_in_peft();
      recipe_.rank = peft_rank_;
    }
    // The most expensive first.
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto cost = [&](std::size_t i) {
      const MatrixShape shape = update_shape(sites_[i].shape_of());
      return combining::is_dense(recipe_.method) ? shape.rows * shape.columns
                                                 : shape.rows + shape.columns;
    };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return cost(a) > cost(b); });
    std::atomic<std::size_t> done{0};
    parallel_for(count, options_.threads, [&](std::size_t at) {
      sinks_.throw_if_cancelled();
      const std::size_t i = order[at];
      results_[i] =
          combining::combine_site(sites_[i], recipe_, options_.dtype.value_or(DType::f32));
      sinks_.report(++done, count, "combining");
    });
  }

  // By position among the adapters that take part.
  Matrix inner_of(std::size_t i) const {
    const auto size = static_cast<Eigen::Index>(adapters_.size());
    Matrix inner = Matrix::Zero(size, size);
    const std::vector<combining::Part>& parts = sites_[i].parts;
    for (std::size_t a = 0; a < parts.size(); ++a)
      for (std::size_t b = 0; b < parts.size(); ++b)
        inner(static_cast<Eigen::Index>(parts[a].adapter),
              static_cast<Eigen::Index>(parts[b].adapter)) =
            results_[i].inner(static_cast<Eigen::Index>(a), static_cast<Eigen::Index>(b));
    return inner;
  }

  std::vector<UpdatePair> pairs_of(const Matrix& inner) const {
    std::vector<UpdatePair> pairs;
    for (Eigen::Index i = 0; i < inner.rows(); ++i)
      for (Eigen::Index j = i + 1; j < inner.cols(); ++j) {
        UpdatePair pair{
            positions_[static_cast<std::size_t>(i)], positions_[static_cast<std::size_t>(j)], {}};
        const double lengths = std::sqrt(inner(i, i)) * std::sqrt(inner(j, j));
        if (lengths > 0) pair.cosine = std::clamp(inner(i, j) / lengths, -1.0, 1.0);
        pairs.push_back(pair);
      }
    return pairs;
  }

  void sum_up() {
    const auto size = static_cast<Eigen::Index>(adapters_.size());
    Matrix total = Matrix::Zero(size, size);
    double squares = 0;
    double error = 0;
    bool has_error = true;
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      const Site& site = sites_[i];
      const combining::SiteResult& result = results_[i];
      const Matrix inner = inner_of(i);
      total += inner;
      CombinedModule module;
      module.module_path = site.module_path;
      module.ranks.assign(options_.adapters.size(), 0);
      for (const combining::Part& part : site.parts)
        module.ranks[positions_[part.adapter]] = part.module->rank;
      module.rank = result.rank;
      module.pairs = pairs_of(inner);
      has_error = has_error && result.squared_error;
      squares += result.squares;
      if (result.squared_error) {
        module.error = result.squares > 0 ? std::sqrt(*result.squared_error / result.squares)
                                          : (*result.squared_error > 0 ? HUGE_VAL : 0);
        error += *result.squared_error;
      }
      report_.modules.push_back(std::move(module));
    }
    report_.pairs = pairs_of(total);
    if (has_error && squares > 0) report_.error = std::sqrt(error / squares);
  }

  void write() {
    operation_.name = "combine";
    operation_.parameters = parameters();
    report_.saved = carried_.base_names;
    combining::Assembled assembled =
        combining::assemble(sites_, std::move(results_), std::move(carried_), peft_rank_);
    if (peft_rank_ && assembled.config.use_rslora)
      report_.notes.push_back("use_rslora stays, as in PEFT: the result is the root of its rank " +
                              std::to_string(*peft_rank_) + " too strong");
    require_layout(assembled);
    hashing_.settle();
    const DerivedReport written = write_derived(*adapters_.front(), std::move(assembled.config),
                                                std::move(assembled.tensors), operation_, derived_);
    append(written.notes);
    report_.is_written = written.is_written;
    report_.bytes = written.bytes;
  }

  // Which dimension of a stack of experts is which follows from the PEFT version of the result.
  void require_layout(const combining::Assembled& assembled) const {
    const bool has_stack = std::any_of(sites_.begin(), sites_.end(),
                                       [](const Site& site) { return site.experts() > 1; });
    if (!has_stack) return;
    const Adapter result = make_adapter(assembled.config, assembled.tensors, options_.output);
    std::vector<std::string> turned;
    for (const Site& site : sites_)
      if (const LoraModule* module = result.find(site.module_path);
          module != nullptr && module->is_in_out != site.shape_of().is_in_out)
        turned.push_back(site.module_path);
    if (!turned.empty())
      throw Error(ErrorKind::incompatible,
                  "cannot combine adapters of PEFT releases that read stacks of experts in "
                  "different layouts: " +
                      rules::join_some(turned));
  }

  JsonObject parameters() const {
    const auto number = [](const auto& value) { return value ? Json(*value) : Json(); };
    JsonObject parameters{{"method", to_string(options_.method)}};
    if (options_.rank) parameters["rank"] = number(options_.rank);
    if (options_.energy) parameters["energy"] = number(options_.energy);
    if (options_.density) parameters["density"] = number(options_.density);
    const bool is_ties =
        options_.method == CombineMethod::ties || options_.method == CombineMethod::ties_svd ||
        options_.method == CombineMethod::dare_ties ||
        options_.method == CombineMethod::dare_ties_svd || options_.method == CombineMethod::knots;
    if (is_ties)
      parameters["majority_sign_method"] =
          options_.majority_sign == MajoritySign::total ? "total" : "frequency";
    if (to_string(options_.method).starts_with("dare")) parameters["seed"] = options_.seed;
    if (options_.compat)
      parameters["peft_compat"] = *options_.compat == PeftCompat::v0_20 ? "0.20" : "0.21";
    if (options_.saved_from) parameters["saved_from"] = std::uint64_t(*options_.saved_from);
    if (options_.dtype) parameters["dtype"] = to_string(*options_.dtype);
    return parameters;
  }

  const CombineOptions& options_;
  const Sinks& sinks_;
  Recipe recipe_;
  DerivedOptions derived_;
  Operation operation_;
  std::vector<const Adapter*> adapters_;   // that take part
  std::vector<std::size_t> positions_;     // of these in the list
  std::optional<std::size_t> saved_from_;  // among these
  std::vector<Site> sites_;
  Carried carried_;
  std::optional<std::int64_t> peft_rank_;
  std::vector<combining::SiteResult> results_;
  CombineReport report_;
  Background hashing_;  // of the inputs, beside everything up to the writing; ends before the rest
};

}  // namespace

CombineReport combine(const CombineOptions& options, const Sinks& sinks) {
  return Combining(options, sinks).run();
}

}  // namespace lora
