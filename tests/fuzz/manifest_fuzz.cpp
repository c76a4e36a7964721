// lora_manifest.json: what is accepted is written in a form that says the same.
#include "fuzz.h"
#include "lora/adapter/manifest.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  folder.put(kManifestName, fuzz::text_of(data, size));
  Manifest manifest;
  if (!fuzz::accepts([&] { manifest = *read_manifest(folder.path()); })) return 0;
  const std::string text = dump_json(to_json(manifest));
  folder.put(kManifestName, text);
  fuzz::require(dump_json(to_json(*read_manifest(folder.path()))) == text,
                "a manifest survives writing", text);
  return 0;
}
