#include "checkpoint/gguf_layout.h"

#include <algorithm>
#include <utility>

namespace lora {

void GgufLayout::add(GgufWeight weight, const std::string& to, std::vector<std::int64_t> shape,
                     const std::vector<std::int64_t>& stored) {
  const GgufTensor& tensor = *weight.tensor;
  if (tensor.shape != stored)
    throw gguf_fault(file_, ErrorKind::malformed,
                     "tensor " + tensor.name + " has the shape " + shape_to_string(tensor.shape) +
                         ", expected " + shape_to_string(stored))
        .in_tensor(tensor.name);
  if (tensor.shape.size() == 1 && !tensor.format->storage)
    throw gguf_fault(file_, ErrorKind::unsupported,
                     "tensor " + tensor.name + " is a vector stored as " +
                         std::string(tensor.format->name) + ", expected plain numbers")
        .in_tensor(tensor.name);
  seen_.insert(tensor.name);
  weight.name = to;
  weight.shape = std::move(shape);
  weights_.push_back(std::move(weight));
}

void GgufLayout::take(const std::string& from, const std::string& to,
                      std::vector<std::int64_t> shape, GgufWeight form) {
  form.tensor = &required_tensor(file_, from);
  std::vector<std::int64_t> stored = shape;
  if (form.is_transposed) std::reverse(stored.begin(), stored.end());
  add(std::move(form), to, std::move(shape), stored);
}

void GgufLayout::linear(const std::string& from, const std::string& to,
                        std::vector<std::int64_t> shape, GgufWeight form) {
  const std::int64_t outputs = form.is_transposed ? shape.back() : shape.front();
  take(from + ".weight", to + ".weight", std::move(shape), form);
  if (!has(from + ".bias")) return;
  form.is_transposed = false;
  take(from + ".bias", to + ".bias", {outputs}, form);
  biases_.insert(from.substr(from.rfind('.') + 1));
}

void GgufLayout::experts(const std::string& from, const std::string& to, std::int64_t count,
                         const std::vector<std::int64_t>& shape) {
  const std::size_t mark = to.find('#');
  for (std::int64_t i = 0; i < count; ++i) {
    GgufWeight form;
    form.tensor = &required_tensor(file_, from);
    form.part = i;
    add(std::move(form), to.substr(0, mark) + std::to_string(i) + to.substr(mark + 1), shape,
        {count, shape[0], shape[1]});
  }
}

void GgufLayout::row(const std::string& from, const std::string& to, std::int64_t size) {
  GgufWeight form;
  form.tensor = &required_tensor(file_, from);
  const bool is_vector = form.tensor->shape.size() == 1;
  add(std::move(form), to, {1, size},
      is_vector ? std::vector{size} : std::vector<std::int64_t>{1, size});
}

std::vector<GgufWeight> GgufLayout::finish(const std::string& architecture) {
  for (const GgufTensor& tensor : file_.tensors)
    if (!seen_.contains(tensor.name))
      throw gguf_fault(file_, ErrorKind::unsupported,
                       "tensor " + tensor.name + " has no place in a " + architecture + " model")
          .in_tensor(tensor.name);
  return std::move(weights_);
}

}  // namespace lora
