#include "ops/derived_adapter.h"

#include <algorithm>
#include <cstring>

#include "lora/adapter/manifest.h"
#include "lora/adapter/strength.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"
#include "lora/base/parallel.h"
#include "ops/adapter_digest.h"
#include "ops/background.h"
#include "ops/cast_tensors.h"
#include "ops/init_base_plan.h"
#include "ops/merge/finite.h"
#include "ops/output_place.h"
#include "ops/rules/rule.h"

namespace lora {
namespace {

std::string key_of(const LoraModule& module, KeyRole role) {
  ParsedKey key;
  key.role = role;
  key.module_path = module.module_path;
  return to_peft_key(key);
}

std::string key_of_a(const LoraModule& module) {
  return key_of(module,
                module.kind == LayerKind::embedding ? KeyRole::embedding_a : KeyRole::lora_a);
}

std::string key_of_b(const LoraModule& module) {
  return key_of(module,
                module.kind == LayerKind::embedding ? KeyRole::embedding_b : KeyRole::lora_b);
}

template <typename T>
void transpose_as(const Tensor& tensor, std::vector<std::byte>& out) {
  const auto rows = static_cast<std::size_t>(tensor.shape[0]);
  const auto columns = static_cast<std::size_t>(tensor.shape[1]);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < columns; ++j)
      std::memcpy(out.data() + (j * rows + i) * sizeof(T),
                  tensor.bytes.data() + (i * columns + j) * sizeof(T), sizeof(T));
}

Tensor transposed(const Tensor& tensor) {
  std::vector<std::byte> out(tensor.bytes.size());
  switch (bits_of(tensor.dtype)) {
    case 16:
      transpose_as<std::uint16_t>(tensor, out);
      break;
    case 32:
      transpose_as<std::uint32_t>(tensor, out);
      break;
    default:
      transpose_as<std::uint64_t>(tensor, out);
      break;
  }
  return Tensor::from_bytes(tensor.dtype, {tensor.shape[1], tensor.shape[0]}, std::move(out));
}

// The factors of every site that changes, tied heads included.
std::map<std::string, SiteFactors> with_tied(const Adapter& adapter,
                                             const std::map<std::string, SiteFactors>& factors) {
  std::map<std::string, SiteFactors> all = factors;
  for (const LoraModule& module : adapter.modules) {
    if (module.tied_to.empty()) continue;
    const auto found = factors.find(module.tied_to);
    if (found == factors.end()) continue;
    all[module.module_path] = {transposed(found->second.b), transposed(found->second.a),
                               found->second.rank, found->second.scaling};
  }
  return all;
}

Tensor scaled_bias(const Tensor& bias, double factor) {
  if (factor == 1) return bias;
  std::vector<double> values = bias.to_f64();
  for (double& value : values) value *= factor;
  std::vector<std::byte> bytes(values.size() * sizeof(double));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor::from_bytes(DType::f64, bias.shape, std::move(bytes)).cast(bias.dtype);
}

Manifest manifest_of(const Adapter& source, const DerivedReport& report, const Operation& operation,
                     const DerivedOptions& options) {
  Manifest manifest = make_manifest(report.adapter, options.threads);
  const auto previous = read_manifest(source.directory());
  if (previous && options.keeps_base_record) {
    manifest.base_root = previous->base_root;
    manifest.base_tensors = previous->base_tensors;
    manifest.base_tokenizer = previous->base_tokenizer;
    manifest.base_chat_template = previous->base_chat_template;
  }
  manifest.history = history_after(operation, adapter_digest(report.adapter, manifest.tensors));
  return manifest;
}

}  // namespace

void require_source(const std::string& verb, const Adapter& adapter,
                    const DerivedOptions& options) {
  require_apart(options.output, adapter.path, "write the result of " + verb + " to", "the adapter");
  if (!options.dry_run) require_absent(options.output, options.write.force, true);
  std::vector<std::string> faults;
  for (const KeyProblem& problem : adapter.problems)
    faults.push_back(problem.key + " " + problem.message);
  if (adapter.modules.empty() && adapter.tokens.empty() && faults.empty())
    faults.push_back("it has no complete LoRA layer");
  std::vector<const TensorMap::value_type*> entries;
  for (const auto& entry : adapter.tensors) entries.push_back(&entry);
  std::vector<char> is_wrong(entries.size());
  parallel_for(entries.size(), options.threads, [&](std::size_t i) {
    is_wrong[i] = !merging::is_finite(entries[i]->second.dtype, entries[i]->second.bytes);
  });
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (is_wrong[i] != 0) faults.push_back(entries[i]->first + " holds NaN or infinity");
  if (faults.empty()) return;
  throw Error(ErrorKind::malformed,
              "cannot " + verb + " " + adapter.path.string() + ": " + rules::join_some(faults))
      .in_file(adapter.path.string())
      .with_hint("lora verify says more; lora repair mends names and configuration");
}

TensorMap with_factors(const Adapter& adapter, const std::map<std::string, SiteFactors>& factors) {
  TensorMap tensors = adapter.tensors;
  for (auto& [path, site] : with_tied(adapter, factors)) {
    const LoraModule* module = adapter.find(path);
    if (module == nullptr)
      throw Error(ErrorKind::internal, "the adapter has no site " + path + " to replace");
    tensors[key_of_a(*module)] = site.a;
    tensors[key_of_b(*module)] = site.b;
    if (module->bias && site.scaling != 0)
      tensors[key_of(*module, KeyRole::lora_b_bias)] =
          scaled_bias(*module->bias, module->scaling / site.scaling);
  }
  return tensors;
}

AdapterConfig with_strengths(const Adapter& adapter,
                             const std::map<std::string, SiteFactors>& factors) {
  const std::map<std::string, SiteFactors> all = with_tied(adapter, factors);
  std::map<std::string, SiteStrength> strengths;
  for (const LoraModule& module : adapter.modules) {
    const auto found = all.find(module.module_path);
    const SiteStrength strength = found == all.end()
                                      ? SiteStrength{module.rank, module.scaling}
                                      : SiteStrength{found->second.rank, found->second.scaling};
    const auto [kept, is_new] = strengths.emplace(pattern_path(module), strength);
    if (!is_new && !(kept->second == strength))
      throw Error(ErrorKind::internal,
                  "two sites of " + kept->first + " got different ranks or scalings");
  }
  AdapterConfig config = adapter.config;
  set_strengths(config, strengths);
  return config;
}

DerivedReport write_derived(const Adapter& source, AdapterConfig config, TensorMap tensors,
                            const Operation& operation, const DerivedOptions& options) {
  DerivedReport report;
  report.output = options.output;
  if (options.dtype) {
    CastTensors cast = cast_tensors(tensors, *options.dtype, options.threads);
    tensors = std::move(cast.tensors);
    if (cast.vanished != 0)
      report.notes.push_back(std::to_string(cast.vanished) + " values are too small for " +
                             std::string(to_string(*options.dtype)) + " and became zero");
  }
  report.adapter = make_adapter(std::move(config), std::move(tensors), options.output);
  if (!report.adapter.problems.empty())
    throw Error(ErrorKind::internal, "the result of " + operation.name + " is no sound adapter: " +
                                         report.adapter.problems.front().key + " " +
                                         report.adapter.problems.front().message);
  for (const auto& [key, tensor] : report.adapter.tensors) report.bytes += tensor.bytes.size();
  std::optional<AtomicDirectory> staged;
  std::optional<Background> writing;  // ends before the directory does
  if (!options.dry_run) {
    require_space(options.output, report.bytes);
    AtomicDirectory& directory = staged.emplace(options.output, options.write);
    // The disk works while the digests are made.
    writing.emplace(1, false).add(
        [&] { write_adapter(directory, report.adapter.config, report.adapter.tensors); });
  }
  const Manifest manifest = manifest_of(source, report, operation, options);
  report.digest = adapter_digest(report.adapter, manifest.tensors);
  if (options.dry_run) return report;
  writing->settle();
  AtomicDirectory& directory = *staged;
  for (const std::filesystem::path& file : carried_files(source.directory())) {
    const auto mapping = MappedFile::open(file);
    directory.write(file.filename(), {reinterpret_cast<const char*>(mapping->bytes().data()),
                                      mapping->bytes().size()});
  }
  write_manifest(directory, manifest);
  directory.commit();
  report.is_written = true;
  return report;
}

}  // namespace lora
