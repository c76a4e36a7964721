// lora::Engine on LibTorch.
#pragma once

#include "lora/engine.h"

namespace lora::engine {

class EngineImpl final : public Engine {
 public:
  EngineInfo info() const override;
  void set_threads(int threads) override;
  std::unique_ptr<EngineModel> load_model(const ModelOptions& options) override;
  Probe record_probe(const ModelOptions& options) override;
  TrainReport train(const TrainOptions& options,
                    const std::function<void(const TrainEvent&)>& on_event,
                    const Sinks& sinks) override;

 private:
  bool interop_is_set_ = false;
};

}  // namespace lora::engine
