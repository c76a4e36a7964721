#include "engine/train/publish.h"

#include <string>
#include <utility>

namespace lora::engine {
namespace {

void add_digest(std::map<std::string, Digest>& digests, const BaseLock& base,
                const std::string& base_name) {
  // Checkpoints of a bare model lack the first component of the names.
  for (const std::string& known : {base_name, base_name.substr(base_name.find('.') + 1)}) {
    const auto alias = base.aliases.find(known);
    const std::string& name = alias == base.aliases.end() ? known : alias->second;
    const auto found = base.tensors.find(name);
    if (found == base.tensors.end()) continue;
    digests[name] = found->second.digest;
    return;
  }
}

}  // namespace

std::map<std::string, Digest> touched_base_tensors(const Adapter& adapter, const BaseLock& base) {
  std::map<std::string, Digest> digests;
  for (const LoraModule& module : adapter.modules) add_digest(digests, base, module.base_name);
  for (const TokenRows& tokens : adapter.tokens)
    add_digest(digests, base, tokens.module_path + ".weight");
  for (const auto& [base_name, tensor] : adapter.replacements) add_digest(digests, base, base_name);
  return digests;
}

void write_trained_adapter(AtomicDirectory& directory, const AdapterConfig& config,
                           const TensorMap& tensors, const Provenance& provenance, int threads) {
  write_adapter(directory, config, tensors);
  const Adapter adapter = make_adapter(config, tensors, {});
  Manifest manifest = make_manifest(adapter, threads);
  manifest.base_root = provenance.base->root;
  manifest.base_tensors = touched_base_tensors(adapter, *provenance.base);
  manifest.base_tokenizer = provenance.tokenizer.tokenizer;
  manifest.base_chat_template = provenance.tokenizer.chat_template_digest();
  manifest.history = provenance.history;
  directory.write(kManifestName, dump_json(to_json(manifest), kPrettyStyle) + "\n");
}

}  // namespace lora::engine
