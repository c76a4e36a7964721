// base.lock.json: what is accepted is written in a form that says the same.
#include "fuzz.h"
#include "lora/checkpoint/base_lock.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  const auto path = folder.put(kBaseLockName, fuzz::text_of(data, size));
  BaseLock lock;
  if (!fuzz::accepts([&] { lock = read_base_lock(path); })) return 0;
  fuzz::require(root_of(lock.tensors) == lock.root, "a root is that of its tensors");
  fuzz::require(read_base_lock(folder.put("again.json", dump_base_lock(lock))) == lock,
                "a lock survives writing");
  return 0;
}
