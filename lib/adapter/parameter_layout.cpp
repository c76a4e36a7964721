#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "adapter/parameter_sites.h"
#include "lora/adapter/adapter.h"

namespace lora {
namespace {

using Shape = std::vector<std::int64_t>;

// More parameters on one module than any known class has; bounds the permutations.
constexpr std::size_t kMostParameters = 6;

// Families of transformers 5.23 whose experts are declared transposed.
constexpr std::array<std::string_view, 3> kInOutFamilies{"gpt_oss", "aria",
                                                         "openai_privacy_filter"};

struct Candidate {
  std::string base_name;
  Shape shape;
};

struct Layout {
  bool fits_out_in = false, fits_in_out = false;
  bool fits() const { return fits_out_in || fits_in_out; }
};

Layout compare(const LoraModule& site, const Candidate& candidate, std::int64_t rank) {
  const std::int64_t in = site.a.shape[1];
  const std::int64_t out = site.b.shape[0];
  const std::int64_t rows = site.a.shape[0];
  const Shape& shape = candidate.shape;
  if (shape.size() == 2) return {rows == rank && shape == Shape{out, in}, false};
  if (shape.size() != 3 || shape[0] <= 0 || rows % shape[0] != 0 || rows / shape[0] != rank)
    return {};
  return {shape[1] == out && shape[2] == in, shape[1] == in && shape[2] == out};
}

class Settler {
 public:
  Settler(Adapter& adapter, const ModuleList& modules, const std::string& model_type)
      : adapter_(adapter),
        patterns_(adapter.config),
        entries_(target_parameters(adapter.config)),
        model_type_(model_type) {
    for (const ModuleInfo& module : modules) {
      if (module.weight_shape.empty()) continue;
      const bool is_parameter = module.kind == LayerKind::parameter;
      shapes_[is_parameter ? module.module_path : module.module_path + ".weight"] =
          module.weight_shape;
    }
  }

  void run() {
    std::map<std::string, std::vector<LoraModule*>> groups;
    for (LoraModule& module : adapter_.modules)
      if (module.kind == LayerKind::parameter)
        groups[without_base_layers(module.module_path)].push_back(&module);
    for (auto& [path, sites] : groups) {
      // Innermost first, as parameters_of lists them.
      std::sort(sites.begin(), sites.end(), [](const LoraModule* x, const LoraModule* y) {
        return x->module_path.size() > y->module_path.size();
      });
      settle(path, sites);
    }
  }

 private:
  std::vector<Candidate> candidates_of(const std::string& path) const {
    std::vector<Candidate> candidates;
    for (const std::string& name : parameters_of(path, entries_))
      if (const auto found = shapes_.find(path + "." + name); found != shapes_.end())
        candidates.push_back({found->first, found->second});
    return candidates;
  }

  bool fit(const std::vector<LoraModule*>& sites, const std::vector<Candidate>& candidates,
           const std::vector<std::size_t>& order) const {
    for (std::size_t i = 0; i < sites.size(); ++i) {
      const Candidate& candidate = candidates[order[i]];
      if (!compare(*sites[i], candidate, patterns_.rank_of(candidate.base_name)).fits())
        return false;
    }
    return true;
  }

  void settle(const std::string& path, const std::vector<LoraModule*>& sites) {
    const std::vector<Candidate> candidates = candidates_of(path);
    if (candidates.size() != sites.size() || candidates.size() > kMostParameters) return;
    std::vector<std::size_t> order(candidates.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::vector<std::size_t> chosen;
    std::size_t fitting = 0;
    do {
      if (!fit(sites, candidates, order)) continue;
      if (fitting++ == 0) chosen = order;
    } while (std::next_permutation(order.begin(), order.end()));
    if (fitting == 0) return;
    for (std::size_t i = 0; i < sites.size(); ++i)
      assign(*sites[i], candidates[chosen[i]], fitting == 1);
  }

  void assign(LoraModule& site, const Candidate& candidate, bool is_name_certain) const {
    const std::int64_t rank = patterns_.rank_of(candidate.base_name);
    const Layout layout = compare(site, candidate, rank);
    site.base_name = candidate.base_name;
    site.is_name_certain = is_name_certain;
    site.rank = rank;
    site.experts = candidate.shape.size() == 3 ? candidate.shape[0] : 1;
    site.alpha = patterns_.alpha_of(candidate.base_name);
    site.scaling = patterns_.scaling_of(candidate.base_name, rank);
    if (layout.fits_out_in != layout.fits_in_out) {
      site.is_in_out = layout.fits_in_out;
      site.is_layout_certain = true;
      return;
    }
    const bool is_old = is_in_out_by_version(adapter_.config);
    const bool is_declared = std::find(kInOutFamilies.begin(), kInOutFamilies.end(), model_type_) !=
                             kInOutFamilies.end();
    site.is_in_out = is_old || is_declared;
    site.is_layout_certain = is_declared || (is_old && peft_release(adapter_.config));
  }

  Adapter& adapter_;
  PatternTable patterns_;
  std::vector<std::string> entries_;
  std::string model_type_;
  std::map<std::string, Shape> shapes_;
};

}  // namespace

void settle_parameters(Adapter& adapter, const ModuleList& modules, const std::string& model_type) {
  if (target_parameters(adapter.config).empty()) return;
  Settler(adapter, modules, model_type).run();
}

}  // namespace lora
