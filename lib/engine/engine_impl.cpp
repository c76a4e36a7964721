#include "engine/engine_impl.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include <utility>

#include "engine/border.h"
#include "engine/model.h"
#include "engine/probe.h"
#include "engine/train/train.h"
#include "lora/adapter/manifest.h"

#ifndef INTRA_OP_PARALLEL
#error "at::parallel_for would run on one thread: compile the engine with OpenMP (LoraTorch.cmake)"
#endif

namespace lora::engine {
namespace {

constexpr const char* kRunning = "running the model";

// A model behind the border: the caller of EngineModel never sees an exception of LibTorch.
class GuardedModel final : public EngineModel {
 public:
  explicit GuardedModel(std::unique_ptr<Model> model) : model_(std::move(model)) {}

  std::vector<ParameterInfo> parameters() const override {
    return behind_border(kRunning, silent_, [&] { return model_->parameters(); });
  }
  TensorMap forward(const TensorMap& inputs) override {
    return behind_border(kRunning, silent_, [&] { return model_->forward(inputs); });
  }
  void enable_adapters(bool enabled) override {
    behind_border(kRunning, silent_, [&] { model_->enable_adapters(enabled); });
  }
  std::vector<std::int64_t> generate(const std::vector<std::int64_t>& prompt,
                                     const GenerateOptions& options) override {
    return behind_border("generating", silent_, [&] { return model_->generate(prompt, options); });
  }

 private:
  Sinks silent_;
  std::unique_ptr<Model> model_;
};

}  // namespace

EngineInfo EngineImpl::info() const { return {TORCH_VERSION, at::get_cpu_capability()}; }

void EngineImpl::set_threads(int threads) {
  behind_border("setting the number of threads", Sinks{}, [&] {
    if (!interop_is_set_) {
      // Nothing here runs operators side by side; LibTorch takes this number only once.
      at::set_num_interop_threads(1);
      interop_is_set_ = true;
    }
    if (threads > 0) at::set_num_threads(threads);
  });
}

std::unique_ptr<EngineModel> EngineImpl::load_model(const ModelOptions& options) {
  return behind_border("loading the model", Sinks{}, [&]() -> std::unique_ptr<EngineModel> {
    return std::make_unique<GuardedModel>(make_model(options));
  });
}

Probe EngineImpl::record_probe(const ModelOptions& options) {
  return behind_border("recording outputs", Sinks{}, [&] {
    ModelOptions frozen = options;
    frozen.trainable = false;
    return probe_model(*make_model(frozen), frozen);
  });
}

TrainReport EngineImpl::train(const TrainOptions& options,
                              const std::function<void(const TrainEvent&)>& on_event,
                              const Sinks& sinks) {
  return behind_border("training", sinks, [&] {
    return run_training(options, {[](const ModelOptions& wanted) { return make_model(wanted); }},
                        on_event, sinks);
  });
}

}  // namespace lora::engine
