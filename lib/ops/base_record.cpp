#include "ops/base_record.h"

#include "lora/checkpoint/tokenizer_files.h"

namespace lora {

void record_base(Manifest& manifest, const Adapter& adapter, const Checkpoint& base,
                 const BaseLock& lock) {
  manifest.base_root = lock.root;
  const TokenizerFiles tokenizer = read_tokenizer_files(base.directory);
  manifest.base_tokenizer = tokenizer.tokenizer;
  manifest.base_chat_template = tokenizer.chat_template_digest();
  for (const LoraModule& module : adapter.modules) {
    const auto alias = lock.aliases.find(module.base_name);
    const auto found =
        lock.tensors.find(alias == lock.aliases.end() ? module.base_name : alias->second);
    if (found != lock.tensors.end()) manifest.base_tensors[found->first] = found->second.digest;
  }
}

}  // namespace lora
