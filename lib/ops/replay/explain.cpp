#include "ops/replay/explain.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "lora/checkpoint/checkpoint.h"
#include "ops/replay/factors.h"
#include "ops/replay/plan.h"
#include "ops/rules/rule.h"

namespace lora::replay {
namespace {

using Kind = MergeExplanation::Kind;
using Change = std::function<bool(Target&)>;

// A fitted multiple this close to a guess makes the guess worth a replay.
constexpr double kNear = 0.1;

Change scaled(const std::function<double(const Addition&)>& factor) {
  return [factor](Target& target) {
    for (Block& block : target.blocks)
      for (Addition& addition : block.additions) addition.scaling *= factor(addition);
    return true;
  };
}

bool transpose(Target& target) {
  for (Block& block : target.blocks)
    for (Addition& addition : block.additions) {
      if (addition.a.shape[1] != addition.b.shape[0]) return false;
      addition.is_transposed = !addition.is_transposed;
    }
  return true;
}

bool repeat(Target& target) {
  for (Block& block : target.blocks) {
    const std::vector<Addition> once = block.additions;
    block.additions.insert(block.additions.end(), once.begin(), once.end());
  }
  return true;
}

bool empty(Target& target) {
  target.blocks.clear();
  target.magnitude.reset();
  return true;
}

double fitted(const Outcome& outcome) {
  return outcome.sums.wanted > 0 ? outcome.sums.overlap / outcome.sums.wanted : 0;
}

class Explainer {
 public:
  Explainer(const Differences& differences, const MergedOptions& options)
      : differences_(differences), options_(options) {
    for (std::size_t i = 0; i < differences.targets.size(); ++i)
      if (differences.outcomes[i].proof == MergeProof::differs &&
          !differences.targets[i].blocks.empty())
        left_.push_back(i);
    total_ = left_.size();
  }

  bool is_done() const { return left_.empty(); }

  void attempt(Kind kind, double factor, const std::string& text, const Change& change,
               const std::function<bool(double)>& is_worth) {
    std::vector<std::size_t> tried;
    std::vector<Target> targets;
    for (const std::size_t i : left_) {
      if (!is_worth(fitted(differences_.outcomes[i]))) continue;
      Target target = differences_.targets[i];
      if (!change(target)) continue;
      tried.push_back(i);
      targets.push_back(std::move(target));
    }
    count(kind, factor, text, tried, replay(targets, options_.threads, options_.sinks));
  }

  void count(Kind kind, double factor, const std::string& text,
             const std::vector<std::size_t>& tried, const std::vector<Outcome>& outcomes) {
    std::set<std::size_t> explained;
    for (std::size_t i = 0; i < tried.size(); ++i)
      if (outcomes[i].fits()) explained.insert(tried[i]);
    if (explained.empty()) return;
    std::erase_if(left_, [&](std::size_t i) { return explained.contains(i); });
    MergeExplanation found;
    found.kind = kind;
    found.factor = factor;
    found.explained = static_cast<std::int64_t>(explained.size());
    found.text = text + " in " + std::to_string(explained.size()) + " of the " +
                 std::to_string(total_) + " updated tensors that differ";
    explanations_.push_back(std::move(found));
  }

  // The multiples that the least squares of the remaining tensors suggest, likeliest first.
  std::vector<double> suggested() const {
    std::vector<double> multiples;
    for (const std::size_t i : left_) multiples.push_back(fitted(differences_.outcomes[i]));
    if (multiples.empty()) return {};
    std::nth_element(multiples.begin(), multiples.begin() + multiples.size() / 2, multiples.end());
    const double median = multiples[multiples.size() / 2];
    std::vector<double> guesses;
    if (std::fabs(median) > 1e-9) {
      if (std::fabs(median) >= 1)
        guesses.push_back(std::round(median));
      else
        guesses.push_back(1 / std::round(1 / median));
      for (const double step : {2.0, 8.0, 64.0})
        guesses.push_back(std::round(median * step) / step);
      guesses.push_back(median);
    }
    std::vector<double> distinct;
    for (const double guess : guesses)
      if (guess != 0 && guess != 1 && std::fabs(guess / median - 1) < kNear &&
          std::find(distinct.begin(), distinct.end(), guess) == distinct.end())
        distinct.push_back(guess);
    return distinct;
  }

  std::string scale_text(double factor) const {
    std::set<double> scalings;
    for (const std::size_t i : left_)
      for (const Block& block : differences_.targets[i].blocks)
        for (const Addition& addition : block.additions) scalings.insert(addition.scaling);
    if (scalings.size() != 1) return rules::figure(factor) + " times the expected scale fits";
    return "scale " + rules::figure(*scalings.begin() * factor) + " fits, expected " +
           rules::figure(*scalings.begin()) + ",";
  }

  void try_adapter(const Adapter& candidate, const Checkpoint& base, const Checkpoint& merged) {
    Plan plan = make_plan({&candidate}, base, merged);
    std::map<std::string, Target*> by_name;
    for (Target& target : plan.targets) by_name[target.base_name] = &target;
    std::vector<std::size_t> tried;
    std::vector<Target> targets;
    for (const std::size_t i : left_) {
      const auto found = by_name.find(differences_.targets[i].base_name);
      if (found == by_name.end() || found->second->blocks.empty()) continue;
      tried.push_back(i);
      targets.push_back(std::move(*found->second));
    }
    const std::size_t before = explanations_.size();
    count(Kind::other_adapter, 1, "adapter " + candidate.path.string() + " fits", tried,
          replay(targets, options_.threads, options_.sinks));
    if (explanations_.size() > before) explanations_.back().adapter = candidate.path;
  }

  std::vector<MergeExplanation> take() { return std::move(explanations_); }

 private:
  const Differences& differences_;
  const MergedOptions& options_;
  std::vector<std::size_t> left_;
  std::size_t total_ = 0;
  std::vector<MergeExplanation> explanations_;
};

std::function<bool(double)> near(double wanted) {
  return [wanted](double value) { return std::fabs(value - wanted) < kNear; };
}

void add_other_base(const Differences& differences, std::vector<MergeExplanation>& found) {
  std::int64_t untouched = 0, different = 0;
  for (std::size_t i = 0; i < differences.targets.size(); ++i) {
    const Target& target = differences.targets[i];
    if (!target.blocks.empty() || target.is_saved || !target.replaced_rows.empty()) continue;
    ++untouched;
    different += differences.outcomes[i].proof == MergeProof::differs ? 1 : 0;
  }
  if (different * 2 <= untouched) return;
  MergeExplanation other;
  other.kind = Kind::other_base;
  other.explained = different;
  other.text = "another base: " + std::to_string(different) + " of the " +
               std::to_string(untouched) + " tensors that the adapter does not touch differ too";
  found.push_back(std::move(other));
}

}  // namespace

std::vector<MergeExplanation> explain(const Differences& differences, const Adapter& adapter,
                                      const Checkpoint& base, const Checkpoint& merged,
                                      const MergedOptions& options) {
  Explainer explainer(differences, options);
  if (!explainer.is_done()) {
    const auto always = [](double) { return true; };
    explainer.attempt(Kind::not_applied, 0, "the weight is the base's: the update was not applied",
                      empty, near(0));
    explainer.attempt(Kind::applied_twice, 2, "the update was added twice", repeat, near(2));
    explainer.attempt(Kind::subtracted, -1, "the update was subtracted",
                      scaled([](const Addition&) { return -1.0; }), near(-1));
    const bool is_rslora = adapter.config.use_rslora;
    explainer.attempt(Kind::rslora_ignored, 1,
                      is_rslora ? "alpha / r was used for rsLoRA's alpha / sqrt(r)"
                                : "rsLoRA's alpha / sqrt(r) was used for alpha / r",
                      scaled([&](const Addition& addition) {
                        const double root = std::sqrt(static_cast<double>(rank_of(addition)));
                        return is_rslora ? 1 / root : root;
                      }),
                      [](double value) { return std::fabs(value - 1) > kNear && value > 0; });
    for (const double factor : explainer.suggested()) {
      if (explainer.is_done()) break;
      explainer.attempt(Kind::other_scale, factor, explainer.scale_text(factor),
                        scaled([factor](const Addition&) { return factor; }), near(factor));
    }
    for (const Adapter* candidate : options.candidates)
      if (!explainer.is_done()) explainer.try_adapter(*candidate, base, merged);
    if (!explainer.is_done())
      explainer.attempt(Kind::transposed, 1, "the update was added transposed", transpose, always);
  }
  std::vector<MergeExplanation> found = explainer.take();
  add_other_base(differences, found);
  return found;
}

}  // namespace lora::replay
