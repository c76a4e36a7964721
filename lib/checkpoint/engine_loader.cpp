#include <dlfcn.h>

#include <mutex>
#include <string>
#include <system_error>

#include "lora/base/error.h"
#include "lora/engine.h"

namespace lora {
namespace {

constexpr const char* kLibraryName = "liblora_engine.so";

std::filesystem::path default_engine_path() {
  std::error_code failed;
  const auto executable = std::filesystem::read_symlink("/proc/self/exe", failed);
  return executable.parent_path().parent_path() / "lib" / "lora" / kLibraryName;
}

Error unavailable(const std::filesystem::path& path, const std::string& reason) {
  return Error(ErrorKind::resources, "cannot open the engine " + path.string() + ": " + reason)
      .in_file(path.string())
      .with_hint(
          "this verb computes with LibTorch: run scripts/setup and build again, or point "
          "LORA_ENGINE at liblora_engine.so");
}

Engine* open_engine(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) throw unavailable(path, "no such file");
  void* handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw unavailable(path, ::dlerror());
  const auto open = reinterpret_cast<EngineOpen>(::dlsym(handle, kEngineSymbol));
  if (open == nullptr) throw unavailable(path, std::string("it has no symbol ") + kEngineSymbol);
  Engine* engine = open(kEngineAbi);
  if (engine == nullptr)
    throw unavailable(path, "it was built for another version of lora, expected interface " +
                                std::to_string(kEngineAbi));
  return engine;
}

}  // namespace

Engine& load_engine(const std::filesystem::path& path) {
  static std::mutex mutex;
  static Engine* engine = nullptr;
  const std::lock_guard lock(mutex);
  if (engine == nullptr) engine = open_engine(path.empty() ? default_engine_path() : path);
  return *engine;
}

}  // namespace lora
