#include "lora/adapter/adapter.h"
#include "lora/format/safetensors.h"

namespace lora {

void write_adapter(AtomicDirectory& directory, const AdapterConfig& config,
                   const TensorMap& tensors) {
  const auto weights = directory.create(kAdapterWeightsName);
  write_safetensors(*weights, sources_of(tensors), &pytorch_metadata());
  weights->sync_and_close();
  directory.write(kAdapterConfigName, dump_adapter_config(config));
}

}  // namespace lora
