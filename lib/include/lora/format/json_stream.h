// Large JSON files, read member by member instead of as one value.
//
// Locks, manifests and shard indices are objects whose bulk is one or two long maps. Their entries
// are handed over one at a time and then forgotten, so that a file costs what its reader keeps.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lora/format/json.h"

namespace lora {

/// Keys from the document down to an object: {"base", "tensors"}.
using JsonPlace = std::vector<std::string>;

/// Takes one member of the object at places[place], in the order of the file. False when the key
/// was there before: whoever keeps the members knows.
using JsonMemberVisitor =
    std::function<bool(std::size_t place, const std::string& key, Json value)>;

/// Reads a file as read_json_file does, up to 256 MiB, and returns it with the objects at `places`
/// left empty. What stands at a place without being an object is part of the result.
///
/// Throws as read_json_file, and Error(malformed) for a key that `visit` has seen before. Each
/// member visited counts against the memory that the file may take as what a map of short names
/// would keep of it.
Json stream_json_file(const std::filesystem::path& path, const std::vector<JsonPlace>& places,
                      const JsonMemberVisitor& visit);

}  // namespace lora
