// A pickle machine that can only build data: no import, no call, no object of a foreign class.
//
// It understands the opcodes that torch.save emits (pickle protocol 2, and the binary opcodes of
// protocols up to 5) and a fixed list of global names (pickle_globals.h). "Calling" one of those
// names means filling a plain struct below; every other name makes the whole stream refused, with
// the foreign names listed. Values live in one arena and refer to each other by index, so cyclic
// input neither leaks nor recurses.
//
// Memory is bounded by the file: text and long integers are views of it, and everything that is
// allocated is paid from a budget first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "format/allocation_budget.h"
#include "format/pickle_globals.h"

namespace lora::pickle {

/// Index of a value in its Document.
using Ref = std::uint32_t;

struct None {};
/// An integer outside 64 bits: little-endian two's complement, as stored.
struct BigInt {
  std::string_view bytes;
};
struct List {
  std::vector<Ref> items;
};
struct Tuple {
  std::vector<Ref> items;
};
/// dict and OrderedDict; pairs in the order of insertion, equal keys not merged.
struct Dict {
  std::vector<std::pair<Ref, Ref>> items;
};
/// A value that state dicts may carry and nothing here looks at: device, dtype, set, bytes.
struct Inert {};
/// Anything a foreign global had a part in.
struct Foreign {};
struct StorageRef {
  std::uint32_t index;  ///< into Document::storages
};
struct TensorRef {
  std::uint32_t index;  ///< into Document::tensors
};

using Value = std::variant<None, bool, std::int64_t, double, std::string_view, BigInt, List, Tuple,
                           Dict, Global, Inert, Foreign, StorageRef, TensorRef>;

/// A persistent id ("storage", class, key, device, count).
struct Storage {
  std::string_view key;
  const ElementType* element = nullptr;
  std::uint64_t count = 0;  ///< elements of `element`
};

/// What a _rebuild_tensor function was asked for. Nothing is checked against the storage yet.
struct TensorView {
  std::uint32_t storage = 0;             ///< into Document::storages
  const ElementType* element = nullptr;  ///< of the tensor; may differ from the storage's
  std::uint64_t offset = 0;              ///< in elements
  std::vector<std::int64_t> shape;       ///< extents >= 0
  std::vector<std::int64_t> strides;     ///< in elements, >= 0, as many as extents
};

struct Document {
  std::deque<Value> values;
  std::deque<Storage> storages;
  std::deque<TensorView> tensors;
  Ref root = 0;
  std::size_t consumed = 0;  ///< bytes up to and including STOP

  const Value& operator[](Ref ref) const { return values[ref]; }
  const Value& root_value() const { return values[root]; }
};

/// Runs the pickle at the start of `stream`, whose bytes must outlive the document. Throws
/// Error(malformed) for broken streams and Error(unsupported) for foreign globals, unknown opcodes,
/// and streams beyond the caps: what `budget` allows, 1 Mi stack entries, 1,000 open marks, 64
/// dimensions, 16 MiB of text in one string.
Document parse(std::span<const std::byte> stream, AllocationBudget& budget);

/// "a dict", "a tensor", ...: what to call a value in a message.
std::string_view describe(const Value& value);

}  // namespace lora::pickle
