#include "adapter/site.h"

#include <algorithm>
#include <string_view>

#include "lora/adapter/config_check.h"
#include "lora/adapter/keys.h"
#include "lora/adapter/strength.h"

namespace lora {
namespace {

using Kind = KeyProblem::Kind;

constexpr std::string_view kOutProjection = ".base_layer.out_proj";
// Every release that adapts nn.MultiheadAttention (0.15.0 to 0.21.2) merges this delta twice, in
// forward passes too, and so trains with the factor.
constexpr double kOutProjectionTimes = 2;
// More blocks than any device mesh has; bounds what update_factors expands.
constexpr std::int64_t kMostBlocks = 256;
constexpr std::int64_t kMostPooled = 1024;

std::int64_t positive_or_one(const Json* value) {
  const auto number = value == nullptr ? std::nullopt : value->as_int();
  return number && *number > 0 ? *number : 1;
}

bool names_part_of(const Json* patterns, const std::string& path) {
  const JsonArray* listed = patterns == nullptr ? nullptr : patterns->as_array();
  return listed != nullptr && std::any_of(listed->begin(), listed->end(), [&](const Json& item) {
           const std::string* text = item.as_string();
           return text != nullptr && path.find(*text) != std::string::npos;
         });
}

bool is_pointwise(const Tensor& b) {
  return std::all_of(b.shape.begin() + 2, b.shape.end(),
                     [](std::int64_t extent) { return extent == 1; });
}

}  // namespace

SiteBuilder::SiteBuilder(const AdapterConfig& config, const std::vector<std::string>& sites,
                         ProblemSink report)
    : config_(config),
      patterns_(config),
      sites_(sites),
      parameters_(name_parameter_sites(config, sites)),
      report_(std::move(report)) {
  std::sort(sites_.begin(), sites_.end());
}

bool SiteBuilder::has_site(const std::string& path) const {
  return std::binary_search(sites_.begin(), sites_.end(), path);
}

void SiteBuilder::choose_kind(LoraModule& module) const {
  const std::string& path = module.module_path;
  module.base_name = without_base_layers(path) + ".weight";
  if (module.kind == LayerKind::embedding) return;
  if (module.a.shape.size() > 2) {
    module.kind = LayerKind::convolution;
  } else if (const auto found = parameters_.find(path); found != parameters_.end()) {
    module.kind = LayerKind::parameter;
    module.base_name = found->second.base_name;
    module.is_name_certain = found->second.is_certain;
  } else if (has_site(path + std::string(kOutProjection))) {
    module.kind = LayerKind::attention;
    module.base_name = path + ".in_proj_weight";
  } else if (path.ends_with(kOutProjection) &&
             has_site(path.substr(0, path.size() - kOutProjection.size()))) {
    module.times = kOutProjectionTimes;
  }
}

SiteBuilder::Blocks SiteBuilder::blocks_of(const std::string& path) const {
  const Json* bdlora = config_.other.find("use_bdlora");
  if (bdlora == nullptr || !bdlora->is_object()) return {};
  const std::int64_t blocks = positive_or_one(bdlora->find("nblocks"));
  if (names_part_of(bdlora->find("target_modules_bd_a"), path)) return {blocks, 1};
  if (names_part_of(bdlora->find("target_modules_bd_b"), path)) return {1, blocks};
  return {};
}

bool SiteBuilder::settle_experts(LoraModule& module, const std::string& key) const {
  const std::int64_t rows = module.a.shape[0];
  const std::int64_t rank = patterns_.rank_of(module.base_name);
  if (rank == kNoRank) {
    report_(
        Kind::rank_mismatch, key,
        "has " + std::to_string(rows) +
            " rows, which nothing divides into experts while the configuration has no usable r");
    return false;
  }
  if (rows % rank != 0) {
    report_(Kind::rank_mismatch, key,
            "has " + std::to_string(rows) + " rows, expected a multiple of " +
                std::to_string(rank) + " from the configuration (r, rank_pattern)");
    return false;
  }
  module.experts = rows / rank;
  module.rank = rank;
  module.is_in_out = module.experts > 1 && is_in_out_by_version(config_);
  module.is_layout_certain = module.experts == 1 || (module.is_in_out && peft_release(config_));
  return true;
}

// A has the rank as its rows, B as its columns. Where it stands on the other side instead, the file
// was written by something that lays factors out otherwise, or that took one for the other.
bool SiteBuilder::is_laid_out_otherwise(const LoraModule& module,
                                        const SiteTensors& tensors) const {
  if (module.kind == LayerKind::convolution || module.kind == LayerKind::parameter) return false;
  const Blocks blocks = blocks_of(module.module_path);
  if (blocks.a != 1 || blocks.b != 1) return false;
  const std::int64_t rank = patterns_.rank_of(pattern_path(module));
  const std::vector<std::int64_t>&a = module.a.shape, &b = module.b.shape;
  // A rank above the dimension that it is next to is a wrong configuration, not a wrong layout.
  const bool is_a_wrong = a[0] > rank && a[1] == rank;
  const bool is_b_wrong = b[1] > rank && b[0] == rank;
  if (!is_a_wrong && !is_b_wrong) return false;
  // The other factor must be right, or wrong in the same way.
  if ((!is_a_wrong && a[0] != rank) || (!is_b_wrong && b[1] != rank)) return false;
  const SiteTensor& shown = is_a_wrong ? tensors.a : tensors.b;
  report_(
      Kind::bad_shape, shown.file_key,
      std::string(is_a_wrong && is_b_wrong ? "looks exchanged with its counterpart, or both are "
                                             "transposed"
                                           : "looks transposed") +
          ": A of " + module.module_path + " is " + shape_to_string(a) + " and B is " +
          shape_to_string(b) + ", expected A [" + std::to_string(rank) +
          ", inputs] and B [outputs, " + std::to_string(rank) + "]");
  return true;
}

bool SiteBuilder::settle_rank(LoraModule& module, const SiteTensors& tensors) const {
  const std::string& path = module.module_path;
  const std::string& key = tensors.a.file_key;
  const std::int64_t rows = module.a.shape[0];
  const std::int64_t columns = module.b.shape[1];
  const std::int64_t configured = patterns_.rank_of(pattern_path(module));
  const Blocks blocks = blocks_of(path);
  module.rank = rows;
  const bool may_fit = rows == configured || configured == kNoRank;
  if (module.kind == LayerKind::convolution && may_fit && rows % columns == 0 &&
      module.b.shape[0] % (rows / columns) == 0)
    module.groups = rows / columns;
  if (module.kind == LayerKind::linear && blocks.a <= kMostBlocks && blocks.b <= kMostBlocks &&
      rows % (blocks.a * blocks.b) == 0 && module.b.shape[0] % blocks.b == 0) {
    module.blocks_a = blocks.a;
    module.blocks_b = blocks.b;
  }
  if (columns * module.groups * module.blocks_b != rows) {
    report_(Kind::rank_mismatch, key,
            "has " + std::to_string(rows) + " rows and B of " + path + " has " +
                std::to_string(columns) + " columns, expected one rank");
    return false;
  }
  if (module.kind == LayerKind::parameter) return settle_experts(module, key);
  if (!may_fit)
    report_(Kind::rank_mismatch, key,
            "has rank " + std::to_string(rows) + ", expected " + std::to_string(configured) +
                " from the configuration (r, rank_pattern)");
  return true;
}

bool SiteBuilder::fits(const SiteTensor& vector, std::int64_t width, const char* meaning) const {
  const std::vector<std::int64_t>& shape = vector.tensor->shape;
  if (shape == std::vector<std::int64_t>{width}) return true;
  report_(Kind::bad_shape, vector.file_key,
          "has shape " + shape_to_string(shape) + ", expected [" + std::to_string(width) + "], " +
              meaning);
  return false;
}

void SiteBuilder::take_extras(LoraModule& module, const SiteTensors& tensors) const {
  const std::int64_t width = module.b.shape[0];
  if (tensors.bias.tensor != nullptr && fits(tensors.bias, width, "the rows of B"))
    module.bias = *tensors.bias.tensor;
  if (tensors.magnitude.tensor != nullptr) {
    // [1, out, 1...] for a convolution; [out] for everything else.
    std::vector<std::int64_t> per_channel(module.a.shape.size(), 1);
    per_channel[1] = width;
    if ((module.kind == LayerKind::convolution && tensors.magnitude.tensor->shape == per_channel) ||
        fits(tensors.magnitude, width, "the rows of B"))
      module.magnitude = *tensors.magnitude.tensor;
  }
  if (tensors.diagonal.tensor != nullptr) {
    if (fits(tensors.diagonal, module.rank, "the rank")) module.diagonal = *tensors.diagonal.tensor;
  } else if (const Json* kasa = config_.other.find("kasa_config");
             module.kind == LayerKind::linear && kasa && kasa->is_object()) {
    report_(Kind::unpaired, tensors.a.file_key,
            "has no counterpart: lora_diag of " + module.module_path +
                " is missing, which kasa_config asks for");
  }
}

std::optional<LoraModule> SiteBuilder::build(const std::string& path,
                                             const SiteTensors& tensors) const {
  LoraModule module;
  module.module_path = path;
  module.kind = tensors.is_embedding ? LayerKind::embedding : LayerKind::linear;
  module.a = *tensors.a.tensor;
  module.b = *tensors.b.tensor;
  if (module.a.shape.size() != module.b.shape.size() || !is_pointwise(module.b)) {
    report_(Kind::bad_shape, tensors.b.file_key,
            "has shape " + shape_to_string(module.b.shape) + " and A of " + path + " has " +
                shape_to_string(module.a.shape) +
                ", expected as many dimensions in both and a kernel of 1 in B");
    return std::nullopt;
  }
  choose_kind(module);
  if (is_laid_out_otherwise(module, tensors)) return std::nullopt;
  if (!settle_rank(module, tensors)) return std::nullopt;
  const Json* is_pooled = config_.other.find("use_qalora");
  if (module.kind == LayerKind::linear && is_pooled && is_pooled->as_bool().value_or(false))
    module.pool = positive_or_one(config_.other.find("qalora_group_size"));
  if (module.pool > kMostPooled) {
    report_(Kind::bad_shape, tensors.a.file_key,
            "pools " + std::to_string(module.pool) + " inputs a column (qalora_group_size), " +
                "expected at most " + std::to_string(kMostPooled));
    return std::nullopt;
  }
  const std::string pattern = pattern_path(module);
  module.alpha = patterns_.alpha_of(pattern);
  module.scaling = patterns_.scaling_of(pattern, module.rank);
  take_extras(module, tensors);
  return module;
}

}  // namespace lora
