#include "lora/ops/make_plain.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "lora/adapter/manifest.h"
#include "lora/adapter/strength.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/checkpoint/base_lock.h"
#include "lora/checkpoint/checkpoint.h"
#include "lora/ops/fit.h"
#include "lora/ops/statistics.h"
#include "ops/derived_adapter.h"
#include "ops/first_factors.h"
#include "ops/init_base_plan.h"
#include "ops/output_place.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

// The wider of two float dtypes, so that neither factor is rounded.
DType wider(DType x, DType y) {
  if (x == y) return x;
  return x == DType::f64 || y == DType::f64 ? DType::f64 : DType::f32;
}

Tensor negated(const Tensor& tensor) {
  std::vector<double> values = tensor.to_f64();
  for (double& value : values) value = -value;
  std::vector<std::byte> bytes(values.size() * sizeof(double));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor::from_bytes(DType::f64, tensor.shape, std::move(bytes)).cast(tensor.dtype);
}

// Beside each other along a dimension of matrices, in `dtype`.
Tensor joined(const Tensor& left, const Tensor& right, int dimension, DType dtype) {
  const Tensor x = left.cast(dtype), y = right.cast(dtype);
  const auto blocks = static_cast<std::size_t>(dimension == 0 ? 1 : x.shape[0]);
  const std::size_t nx = x.bytes.size() / blocks, ny = y.bytes.size() / blocks;
  std::vector<std::byte> bytes(x.bytes.size() + y.bytes.size());
  for (std::size_t i = 0; i < blocks; ++i) {
    std::memcpy(bytes.data() + i * (nx + ny), x.bytes.data() + i * nx, nx);
    std::memcpy(bytes.data() + i * (nx + ny) + nx, y.bytes.data() + i * ny, ny);
  }
  std::vector<std::int64_t> shape = x.shape;
  shape[static_cast<std::size_t>(dimension)] += y.shape[static_cast<std::size_t>(dimension)];
  return Tensor::from_bytes(dtype, std::move(shape), std::move(bytes));
}

class Conversion {
 public:
  explicit Conversion(const MakePlainOptions& options)
      : options_(options),
        adapter_(*options.adapter),
        name_(adapter_.path.string()),
        init_(base_changing_init(adapter_.config)) {}

  MakePlainReport run() {
    check_request();
    require_source("convert", adapter_, options_.output);
    choose_sites();
    if (options_.initial != nullptr)
      take_initial();
    else
      take_from_base();
    compare_beginning();
    write();
    return std::move(report_);
  }

 private:
  [[noreturn]] void refuse(ErrorKind kind, const std::string& what, std::string hint = {}) const {
    throw Error(kind, "cannot convert " + name_ + ": " + what)
        .in_file(name_)
        .with_hint(std::move(hint));
  }

  void check_request() const {
    if ((options_.initial != nullptr) == (options_.base != nullptr))
      throw Error(ErrorKind::usage,
                  "convert needs the adapter as it was before training "
                  "(--init-adapter) or the original base (--base), one of them");
    if (init_.empty())
      refuse(ErrorKind::unsupported,
             "its initialisation did not change the base; it is a plain LoRA already");
    if (init_ == "loftq")
      refuse(ErrorKind::unsupported,
             "loftq belongs to a quantised base, whose rounding no factors hold");
    if (options_.base != nullptr) require_known_init(init_, name_);
    if (options_.initial != nullptr)
      require_apart(options_.output.output, options_.initial->path,
                    "write the result of convert to", "the initial adapter");
    if (options_.base != nullptr)
      require_apart(options_.output.output, options_.base->path, "write the result of convert to",
                    "the base");
  }

  // PEFT gives these initialisations to linear layers (and Conv1D); embeddings and convolutions
  // start as usual.
  void choose_sites() {
    std::vector<std::string> others;
    for (const LoraModule& module : adapter_.modules) {
      if (module.kind == LayerKind::linear && module.times == 1) {
        sites_.push_back(&module);
      } else if (module.kind != LayerKind::embedding && module.kind != LayerKind::convolution) {
        others.push_back(module.module_path);
      }
    }
    if (!others.empty())
      refuse(ErrorKind::unsupported,
             "PEFT converts linear layers only, found attention modules or "
             "bare parameters: " +
                 rules::join_some(others, 3));
    if (sites_.empty()) refuse(ErrorKind::unsupported, "it has no linear layer");
  }

  void take_initial() {
    const Adapter& initial = *options_.initial;
    require_source("convert with the initial adapter", initial, options_.output);
    // PEFT's own recipe leaves true in the initial adapter's configuration.
    if (const std::string init = base_changing_init(initial.config); !init.empty() && init != init_)
      refuse(ErrorKind::incompatible, "it began as " + init_ + ", the initial adapter " +
                                          initial.path.string() + " as " + init);
    std::vector<std::string> faults;
    for (const LoraModule* module : sites_) {
      const LoraModule* first = initial.find(module->module_path);
      if (first == nullptr) {
        faults.push_back(module->module_path + " is not in it");
      } else if (first->a.shape != module->a.shape || first->b.shape != module->b.shape) {
        faults.push_back(module->module_path + " has factors " + shape_to_string(first->a.shape) +
                         " and " + shape_to_string(first->b.shape) + " in it, expected " +
                         shape_to_string(module->a.shape) + " and " +
                         shape_to_string(module->b.shape));
      } else if (first->scaling != module->scaling) {
        faults.push_back(module->module_path + " has scaling " + rules::figure(first->scaling) +
                         " in it, expected " + rules::figure(module->scaling));
      } else {
        first_[module->module_path] = {first->a, first->b};
      }
    }
    if (!faults.empty())
      refuse(ErrorKind::incompatible, "the initial adapter " + initial.path.string() +
                                          " is not its beginning: " + rules::join_some(faults, 3));
    const auto is_same = [&](const LoraModule* module) {
      const FactorPair& pair = first_.at(module->module_path);
      return std::equal(pair.a.bytes.begin(), pair.a.bytes.end(), module->a.bytes.begin(),
                        module->a.bytes.end()) &&
             std::equal(pair.b.bytes.begin(), pair.b.bytes.end(), module->b.bytes.begin(),
                        module->b.bytes.end());
    };
    if (std::all_of(sites_.begin(), sites_.end(), is_same))
      notes_.push_back("the adapter equals its initial one: the converted update is zero");
    LineageInput input =
        lineage_of(initial, read_manifest(initial.directory()), options_.output.threads);
    input.kind = "initial";
    origin_ = std::move(input);
  }

  void take_from_base() {
    const Checkpoint& base = *options_.base;
    refuse_quantised(base, "find first factors in");
    Adapter fitting = adapter_;
    require_fit(fitting, base);
    const BaseLock lock = lock_of(base, options_.output.threads, options_.sinks);
    if (const auto manifest = read_manifest(adapter_.directory());
        manifest && manifest->base_root && !options_.any_base)
      require_recorded_base(*manifest, lock, name_, base.path.string());
    std::map<std::string, LayerKind> kinds;
    for (const ModuleInfo& module : list_modules(base)) kinds[module.module_path] = module.kind;
    std::vector<FactorPair> pairs(sites_.size());
    parallel_for(sites_.size(), options_.output.threads, [&](std::size_t i) {
      const LoraModule& module = *sites_[i];
      const Tensor* weight = base.find(module.base_name);
      if (weight == nullptr || weight->shape.size() != 2 || !is_float(weight->dtype))
        refuse(ErrorKind::incompatible,
               "the base has no matrix " + module.base_name + ", expected the original weights");
      const bool is_class =
          kinds.contains(module.module_path) && kinds.at(module.module_path) == LayerKind::conv1d;
      pairs[i] = first_factors(init_, module, *weight, is_conv1d(module, *weight, is_class));
    });
    for (std::size_t i = 0; i < sites_.size(); ++i)
      first_[sites_[i]->module_path] = std::move(pairs[i]);
    origin_.digest = lock.root;
    origin_.kind = "base";
  }

  // Training turns the first factors little: what has nothing of them began from another base.
  void compare_beginning() {
    constexpr double kAlike = 0.5;
    double overlap = 0, squares = 0, first_squares = 0;
    std::vector<UpdateDistance> distances(sites_.size());
    parallel_for(sites_.size(), options_.output.threads, [&](std::size_t i) {
      LoraModule beginning = *sites_[i];
      beginning.a = first_.at(sites_[i]->module_path).a;
      beginning.b = first_.at(sites_[i]->module_path).b;
      distances[i] = update_distance(*sites_[i], beginning);
    });
    for (const UpdateDistance& both : distances) {
      overlap += both.cosine * both.norm_a * both.norm_b;
      squares += both.norm_a * both.norm_a;
      first_squares += both.norm_b * both.norm_b;
    }
    if (first_squares == 0 || squares == 0) return;
    const double cosine = overlap / std::sqrt(squares * first_squares);
    report_.beginning_cosine = cosine;
    if (cosine < kAlike)
      notes_.push_back(
          "the adapter has little of these first factors (cosine " + rules::figure(cosine) +
          "): it " +
          (options_.base != nullptr ? "was trained on another base" : "did not begin as this one") +
          ", or training took it very far away");
  }

  // By the shape where it tells; of a square weight by its class, and without one to ask the
  // configuration is the only word.
  bool is_conv1d(const LoraModule& module, const Tensor& weight, bool is_class) const {
    const std::int64_t rows = module.b.shape[0], columns = module.a.shape[1];
    const bool is_linear = weight.shape == std::vector<std::int64_t>{rows, columns};
    const bool is_turned = weight.shape == std::vector<std::int64_t>{columns, rows};
    if (!is_linear && !is_turned)
      refuse(ErrorKind::incompatible, module.base_name + " is " + shape_to_string(weight.shape) +
                                          " in the base, expected [" + std::to_string(rows) + ", " +
                                          std::to_string(columns) + "]");
    if (is_linear != is_turned) return is_turned;
    return options_.base->config ? is_class : adapter_.config.fan_in_fan_out;
  }

  // PEFT's own way of writing twice the rank; with_strengths adds what that does not say.
  AdapterConfig doubled() const {
    AdapterConfig config = adapter_.config;
    double_ranks(config);
    return config;
  }

  void write() {
    std::map<std::string, SiteFactors> factors;
    for (const LoraModule* module : sites_) {
      const FactorPair& first = first_.at(module->module_path);
      factors[module->module_path] = {
          joined(module->a, first.a, 0, wider(module->a.dtype, first.a.dtype)),
          joined(module->b, negated(first.b), 1, wider(module->b.dtype, first.b.dtype)),
          2 * module->rank, module->scaling};
    }
    Operation operation{
        "convert",
        JsonObject{{"init", init_}},
        {lineage_of(adapter_, read_manifest(adapter_.directory()), options_.output.threads),
         origin_}};
    if (options_.output.dtype) operation.parameters["dtype"] = to_string(*options_.output.dtype);
    Adapter source = adapter_;
    source.config = doubled();
    report_.result = write_derived(adapter_, with_strengths(source, factors),
                                   with_factors(adapter_, factors), operation, options_.output);
    report_.init = init_;
    for (const LoraModule& module : adapter_.modules)
      report_.modules.push_back(
          {module.module_path, module.rank, report_.result.adapter.find(module.module_path)->rank});
    report_.result.notes.insert(report_.result.notes.begin(), notes_.begin(), notes_.end());
  }

  const MakePlainOptions& options_;
  const Adapter& adapter_;
  std::string name_, init_;
  std::vector<const LoraModule*> sites_;
  std::map<std::string, FactorPair> first_;
  LineageInput origin_;
  std::vector<std::string> notes_;
  MakePlainReport report_;
};

}  // namespace

MakePlainReport make_plain(const MakePlainOptions& options) { return Conversion(options).run(); }

}  // namespace lora
