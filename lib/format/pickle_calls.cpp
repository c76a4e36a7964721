#include "format/pickle_calls.h"

#include <array>

#include "format/in_quotes.h"

namespace lora::pickle {
namespace {

/// A value and the smallest heap block of the container it may be.
constexpr std::size_t kValueBytes = sizeof(Value) + 40;
/// A storage here, its bytes in the container, and the tables that find it.
constexpr std::size_t kStorageBytes = 256;
constexpr std::size_t kTensorBytes = 256;
constexpr std::size_t kMaxDimensions = 64;

template <typename T>
const T* as(const Document& document, Ref ref) {
  return std::get_if<T>(&document.values[ref]);
}

void require_args(const std::vector<Ref>& args, std::size_t least, std::size_t most,
                  const char* function) {
  if (args.size() < least || args.size() > most)
    throw malformed(std::string("calls ") + function + " with " + std::to_string(args.size()) +
                    " arguments");
}

std::uint64_t count_arg(const Document& document, Ref ref, const char* what) {
  const auto* value = as<std::int64_t>(document, ref);
  if (value == nullptr)
    throw malformed(std::string(what) + " is " + std::string(describe(document[ref])) +
                    ", expected an integer");
  if (*value < 0) throw malformed(std::string(what) + " is negative: " + std::to_string(*value));
  return static_cast<std::uint64_t>(*value);
}

std::vector<std::int64_t> extents_arg(const Document& document, Ref ref, const char* what) {
  const auto* tuple = as<Tuple>(document, ref);
  if (tuple == nullptr)
    throw malformed(std::string(what) + " is " + std::string(describe(document[ref])) +
                    ", expected a tuple");
  if (tuple->items.size() > kMaxDimensions)
    throw unsupported("tensor with " + std::to_string(tuple->items.size()) + " dimensions");
  std::vector<std::int64_t> extents;
  extents.reserve(tuple->items.size());
  for (const Ref item : tuple->items)
    extents.push_back(static_cast<std::int64_t>(count_arg(document, item, what)));
  return extents;
}

// Metadata marks a tensor whose bytes still have to be conjugated or negated.
void require_no_metadata(const Document& document, Ref ref) {
  const auto* dict = as<Dict>(document, ref);
  if (std::holds_alternative<None>(document[ref]) || (dict != nullptr && dict->items.empty()))
    return;
  throw unsupported("tensor with metadata, such as a lazy conjugation");
}

Ref rebuild_tensor(Builder& builder, GlobalKind kind, const std::vector<Ref>& args) {
  Document& document = builder.document;
  const bool has_dtype = kind == GlobalKind::rebuild_tensor_v3;
  const std::size_t plain = kind == GlobalKind::rebuild_tensor ? 4 : has_dtype ? 7 : 6;
  require_args(args, plain, kind == GlobalKind::rebuild_tensor ? 4 : plain + 1, "_rebuild_tensor");
  const auto* storage = as<StorageRef>(document, args[0]);
  if (storage == nullptr)
    throw malformed("builds a tensor on " + std::string(describe(document[args[0]])) +
                    ", expected a storage");
  TensorView view;
  view.storage = storage->index;
  view.element = document.storages[storage->index].element;
  view.offset = count_arg(document, args[1], "storage offset");
  view.shape = extents_arg(document, args[2], "tensor shape");
  view.strides = extents_arg(document, args[3], "tensor stride");
  if (view.strides.size() != view.shape.size())
    throw malformed("tensor has " + std::to_string(view.shape.size()) + " dimensions and " +
                    std::to_string(view.strides.size()) + " strides");
  builder.spend(1, kTensorBytes);
  builder.spend(view.shape.size(), 2 * sizeof(std::int64_t));
  if (has_dtype) {
    const auto* dtype = as<Global>(document, args[6]);
    if (dtype == nullptr || dtype->kind != GlobalKind::dtype)
      throw malformed("tensor dtype is " + std::string(describe(document[args[6]])) +
                      ", expected a torch dtype");
    view.element = dtype->element;
  }
  if (args.size() > plain) require_no_metadata(document, args[plain]);
  document.tensors.push_back(std::move(view));
  return builder.append(TensorRef{static_cast<std::uint32_t>(document.tensors.size() - 1)});
}

Ref tensor_arg(const Document& document, const std::vector<Ref>& args) {
  if (as<TensorRef>(document, args[0]) == nullptr)
    throw malformed("builds a parameter from " + std::string(describe(document[args[0]])) +
                    ", expected a tensor");
  return args[0];
}

// _rebuild_from_type_v2(function, class, arguments, state). The function must be one that builds a
// tensor directly: nested calls would let the input choose the depth of our recursion.
Ref rebuild_from_type(Builder& builder, const std::vector<Ref>& args) {
  require_args(args, 4, 4, "_rebuild_from_type_v2");
  const Document& document = builder.document;
  const auto* function = as<Global>(document, args[0]);
  const auto* type = as<Global>(document, args[1]);
  const auto* inner = as<Tuple>(document, args[2]);
  const bool builds_tensor = function != nullptr && function->kind >= GlobalKind::rebuild_tensor &&
                             function->kind <= GlobalKind::rebuild_parameter;
  if (!builds_tensor || type == nullptr || type->kind != GlobalKind::tensor_class ||
      inner == nullptr)
    throw unsupported("tensor of a special class");
  const Global callee = *function;
  return call(builder, callee, std::vector<Ref>(inner->items));
}

Ref ordered_dict(Builder& builder, const std::vector<Ref>& args) {
  require_args(args, 0, 1, "OrderedDict");
  const Document& document = builder.document;
  Dict dict;
  if (!args.empty()) {
    // Python 2 wrote an OrderedDict as OrderedDict([[key, value], ...]). A few bytes of stream may
    // ask for this copy again and again, so its pairs are paid for.
    const auto* pairs = as<List>(document, args[0]);
    if (pairs == nullptr) throw malformed("calls OrderedDict without a list of pairs");
    builder.spend(pairs->items.size(), kDictItemBytes);
    for (const Ref item : pairs->items) {
      const auto* list = as<List>(document, item);
      const auto* tuple = as<Tuple>(document, item);
      const std::vector<Ref>* pair = list != nullptr    ? &list->items
                                     : tuple != nullptr ? &tuple->items
                                                        : nullptr;
      if (pair == nullptr || pair->size() != 2)
        throw malformed("calls OrderedDict without a list of pairs");
      dict.items.emplace_back((*pair)[0], (*pair)[1]);
    }
  }
  return builder.append(std::move(dict));
}

}  // namespace

Error malformed(const std::string& what) {
  return Error(ErrorKind::malformed, "pickle stream " + what);
}

Error unsupported(const std::string& what) {
  return Error(ErrorKind::unsupported, "pickle stream has a " + what);
}

void Builder::spend(std::size_t count, std::size_t bytes) {
  if (!budget.spend(std::uint64_t{count} * bytes))
    throw Error(ErrorKind::unsupported,
                "pickle stream holds more values than a file of its size justifies");
}

Ref Builder::append(Value value) {
  spend(1, kValueBytes);
  document.values.push_back(std::move(value));
  return static_cast<Ref>(document.values.size() - 1);
}

Ref call(Builder& builder, const Global& callee, const std::vector<Ref>& args) {
  const Document& document = builder.document;
  switch (callee.kind) {
    case GlobalKind::ordered_dict:
      return ordered_dict(builder, args);
    case GlobalKind::rebuild_tensor:
    case GlobalKind::rebuild_tensor_v2:
    case GlobalKind::rebuild_tensor_v3:
      return rebuild_tensor(builder, callee.kind, args);
    case GlobalKind::rebuild_parameter:
      require_args(args, 3, 3, "_rebuild_parameter");
      return tensor_arg(document, args);
    case GlobalKind::rebuild_parameter_with_state:
      require_args(args, 4, 4, "_rebuild_parameter_with_state");
      return tensor_arg(document, args);
    case GlobalKind::rebuild_from_type_v2:
      return rebuild_from_type(builder, args);
    case GlobalKind::size:
      require_args(args, 1, 1, "torch.Size");
      if (as<Tuple>(document, args[0]) == nullptr)
        throw malformed("calls torch.Size without a tuple");
      return args[0];
    case GlobalKind::inert:
      return builder.append(Inert{});
    case GlobalKind::tensor_class:
    case GlobalKind::storage_class:
    case GlobalKind::dtype:
      break;
  }
  throw malformed("calls something that is not a function");
}

Ref load_storage(Builder& builder, Ref persistent_id) {
  Document& document = builder.document;
  const auto* id = as<Tuple>(document, persistent_id);
  if (id == nullptr || id->items.size() < 5 || id->items.size() > 6)
    throw malformed("has a persistent id that is not a storage");
  const auto* tag = as<std::string_view>(document, id->items[0]);
  const auto* type = as<Global>(document, id->items[1]);
  const auto* key = as<std::string_view>(document, id->items[2]);
  if (tag == nullptr || *tag != "storage" || type == nullptr ||
      type->kind != GlobalKind::storage_class || key == nullptr)
    throw malformed("has a persistent id that is not a storage");
  if (id->items.size() == 6 && as<None>(document, id->items[5]) == nullptr)
    throw unsupported("storage that is a view of another one, as torch before 0.4 wrote");
  builder.spend(1, kStorageBytes);
  document.storages.push_back(
      {*key, type->element, count_arg(document, id->items[4], "storage size")});
  return builder.append(StorageRef{static_cast<std::uint32_t>(document.storages.size() - 1)});
}

std::string_view describe(const Value& value) {
  constexpr auto kNames = std::to_array<std::string_view>(
      {"None", "a boolean", "an integer", "a float", "a string", "a big integer", "a list",
       "a tuple", "a dict", "a global name", "a value without tensors", "a foreign object",
       "a storage", "a tensor"});
  static_assert(kNames.size() == std::variant_size_v<Value>);
  return kNames[value.index()];
}

}  // namespace lora::pickle
