#include "cli/version.h"

#include "cli/verb.h"
#include "lora/base/error.h"
#include "lora/base/parallel.h"
#include "lora/engine.h"
#include "lora/format/json.h"

namespace lora::cli {
namespace {

std::string processor_features() {
  std::string features;
#if defined(__x86_64__)
  const auto add = [&](bool has, const char* name) {
    if (has) features += (features.empty() ? "" : " ") + std::string(name);
  };
  add(__builtin_cpu_supports("avx2") != 0, "avx2");
  add(__builtin_cpu_supports("fma") != 0, "fma");
  add(__builtin_cpu_supports("avx512f") != 0, "avx512f");
  add(__builtin_cpu_supports("avx512bf16") != 0, "avx512bf16");
#endif
  return features.empty() ? "none in use" : features;
}

}  // namespace

std::string version_text(bool detailed, bool json, const Streams& streams) {
  JsonObject result{{"version", LORA_VERSION}};
  std::string text = "lora " LORA_VERSION "\n";
  if (detailed) {
    std::string engine;
    std::string libtorch;
    try {
      const EngineInfo info = load_engine(streams.environment("LORA_ENGINE").value_or("")).info();
      engine = "available";
      libtorch = info.libtorch_version + " (" + info.cpu_capability + ")";
    } catch (const Error& error) {
      engine = "not available: " + error.message();
    }
    result["build"] = "C++" + std::to_string(__cplusplus / 100 % 100) + ", GCC " __VERSION__;
    result["engine"] = engine;
    result["libtorch"] = libtorch.empty() ? Json() : Json(libtorch);
    result["processor"] = processor_features();
    result["threads"] = available_threads();
    text += "build      " + *result["build"].as_string() + "\nengine     " + engine + "\n";
    if (!libtorch.empty()) text += "libtorch   " + libtorch + "\n";
    text += "processor  " + processor_features() + "\nthreads    " +
            std::to_string(available_threads()) + "\n";
  }
  if (!json) return text;
  const JsonObject document{{"schema", "lora.version/1"},
                            {"tool", JsonObject{{"name", "lora"}, {"version", LORA_VERSION}}},
                            {"result", std::move(result)},
                            {"findings", JsonArray()},
                            {"error", nullptr}};
  return dump_json(document) + "\n";
}

}  // namespace lora::cli
