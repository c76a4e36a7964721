// The pickle machine alone: every reference of a document points into it.
#include "format/pickle.h"
#include "fuzz.h"

namespace {

using namespace lora;

void require_known(const pickle::Document& document, pickle::Ref ref) {
  fuzz::require(ref < document.values.size(), "a reference points to a value");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = fuzz::bytes_of(data, size);
  fuzz::accepts([&] {
    AllocationBudget budget(bytes.size());
    const pickle::Document document = pickle::parse(bytes, budget);
    require_known(document, document.root);
    fuzz::require(document.consumed <= bytes.size(), "a pickle ends inside its stream");
    for (const pickle::Value& value : document.values) {
      fuzz::require(!pickle::describe(value).empty(), "every value has a name");
      if (const auto* list = std::get_if<pickle::List>(&value))
        for (const pickle::Ref ref : list->items) require_known(document, ref);
      if (const auto* tuple = std::get_if<pickle::Tuple>(&value))
        for (const pickle::Ref ref : tuple->items) require_known(document, ref);
      if (const auto* dict = std::get_if<pickle::Dict>(&value))
        for (const auto& [key, member] : dict->items) {
          require_known(document, key);
          require_known(document, member);
        }
      if (const auto* tensor = std::get_if<pickle::TensorRef>(&value))
        fuzz::require(tensor->index < document.tensors.size(), "a tensor is listed");
      if (const auto* storage = std::get_if<pickle::StorageRef>(&value))
        fuzz::require(storage->index < document.storages.size(), "a storage is listed");
    }
    for (const pickle::TensorView& view : document.tensors) {
      fuzz::require(view.storage < document.storages.size(), "a view has a storage");
      fuzz::require(view.shape.size() == view.strides.size(), "every extent has a stride");
    }
  });
  return 0;
}
