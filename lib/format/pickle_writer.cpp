#include "format/pickle_writer.h"

#include <map>
#include <string_view>

#include "format/in_quotes.h"
#include "format/pickle_globals.h"
#include "format/pickle_opcodes.h"
#include "lora/base/error.h"

namespace lora::pickle {
namespace {

// What Python's own pickler puts into one SETITEMS.
constexpr std::size_t kBatch = 1000;

class Emitter {
 public:
  std::string take() { return std::move(out_); }

  void op(Opcode opcode) { out_ += static_cast<char>(opcode); }

  void integer(std::uint64_t value) {
    if (value <= 0xFF) {
      op(Opcode::binint1);
      little_endian(value, 1);
    } else if (value <= 0xFFFF) {
      op(Opcode::binint2);
      little_endian(value, 2);
    } else if (value <= 0x7FFFFFFF) {
      op(Opcode::binint);
      little_endian(value, 4);
    } else {
      op(Opcode::long1);
      little_endian(8, 1);
      little_endian(value, 8);
    }
  }

  void text(std::string_view value) {
    op(Opcode::binunicode);
    little_endian(value.size(), 4);
    out_ += value;
  }

  /// Text or a global that occurs in every tensor: written once, then fetched from the memo.
  void shared_text(std::string_view value) {
    if (recall(value)) return;
    text(value);
    memoize(value);
  }
  void shared_global(std::string_view module, std::string_view name) {
    const std::string key = std::string(module) + '\n' + std::string(name) + '\n';
    if (recall(key)) return;
    op(Opcode::global);
    out_ += key;
    memoize(key);
  }

  void extents(const std::vector<std::int64_t>& values) {
    if (values.empty()) {
      op(Opcode::empty_tuple);
      return;
    }
    op(Opcode::mark);
    for (const std::int64_t value : values) integer(static_cast<std::uint64_t>(value));
    op(Opcode::tuple);
  }

  void empty_ordered_dict() {
    shared_global("collections", "OrderedDict");
    op(Opcode::empty_tuple);
    op(Opcode::reduce);
  }

 private:
  void little_endian(std::uint64_t value, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xFF);
  }
  bool recall(std::string_view key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) return false;
    op(Opcode::binget);
    little_endian(found->second, 1);
    return true;
  }
  // At most one entry for each dtype and a handful of names, so one byte of index is enough.
  void memoize(std::string_view key) {
    op(Opcode::binput);
    little_endian(memo_.size(), 1);
    memo_.emplace(std::string(key), memo_.size());
  }

  std::string out_;
  std::map<std::string, std::size_t, std::less<>> memo_;
};

std::vector<std::int64_t> row_major_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) {
    // torch counts an extent of 0 as 1 here.
    strides[i - 1] = strides[i] * (shape[i] == 0 ? 1 : shape[i]);
  }
  return strides;
}

void emit_tensor(Emitter& out, const PickledTensor& tensor) {
  const ElementType* element = element_type_of(tensor.dtype);
  if (element == nullptr)
    throw Error(ErrorKind::unsupported,
                "cannot write tensor " + in_quotes(tensor.name) + " to a torch file: found dtype " +
                    std::string(to_string(tensor.dtype)) + ", which torch.save has no form for")
        .in_tensor(tensor.name);
  const bool is_typed = !element->storage_name.empty();
  out.shared_global("torch._utils", is_typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  out.op(Opcode::mark);
  out.op(Opcode::mark);
  out.shared_text("storage");
  if (is_typed) {
    out.shared_global("torch", element->storage_name);
  } else {
    out.shared_global("torch.storage", "UntypedStorage");
  }
  out.text(tensor.storage_key);
  out.shared_text("cpu");
  out.integer(is_typed ? tensor.storage_count : tensor.storage_count * element->bytes);
  out.op(Opcode::tuple);
  out.op(Opcode::binpersid);
  out.integer(0);
  out.extents(tensor.shape);
  out.extents(row_major_strides(tensor.shape));
  out.op(Opcode::newfalse);
  out.empty_ordered_dict();
  if (!is_typed) out.shared_global("torch", element->torch_name);
  out.op(Opcode::tuple);
  out.op(Opcode::reduce);
}

}  // namespace

std::string write_state_dict(const std::vector<PickledTensor>& tensors) {
  Emitter out;
  out.op(Opcode::proto);
  out.op(static_cast<Opcode>(2));
  out.empty_ordered_dict();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (i % kBatch == 0) out.op(Opcode::mark);
    out.text(tensors[i].name);
    emit_tensor(out, tensors[i]);
    if (i % kBatch == kBatch - 1 || i + 1 == tensors.size()) out.op(Opcode::setitems);
  }
  out.op(Opcode::stop);
  return out.take();
}

}  // namespace lora::pickle
