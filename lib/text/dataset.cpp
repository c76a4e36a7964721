#include "lora/text/dataset.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "lora/base/error.h"
#include "lora/base/random.h"

namespace lora {
namespace {

[[noreturn]] void refuse_table(const std::string& origin, const std::string& what) {
  throw Error(ErrorKind::malformed, "cannot use " + origin + " as training data: " + what)
      .in_file(origin);
}

}  // namespace

Example Dataset::example(std::size_t index) const {
  if (is_tabular || index >= ends_.size())
    throw Error(ErrorKind::internal, "example " + std::to_string(index) + " of a data set with " +
                                         std::to_string(ends_.size()) + " sequences");
  const auto begin = static_cast<std::ptrdiff_t>(index == 0 ? 0 : ends_[index - 1]);
  const auto end = static_cast<std::ptrdiff_t>(ends_[index]);
  const std::deque<std::int32_t>& labels = labels_.empty() ? ids_ : labels_;
  return {{ids_.begin() + begin, ids_.begin() + end},
          {labels.begin() + begin, labels.begin() + end},
          origin_of(index)};
}

std::string Dataset::origin(std::size_t index) const {
  return is_tabular ? table_origin_ + ", row " + std::to_string(index) : origin_of(index);
}

std::int64_t Dataset::length(std::size_t index) const {
  return static_cast<std::int64_t>(ends_.at(index) - (index == 0 ? 0 : ends_[index - 1]));
}

void Dataset::append(const Example& example) {
  if (example.input_ids.empty() || example.input_ids.size() != example.labels.size())
    throw Error(ErrorKind::internal, "a training example with " +
                                         std::to_string(example.input_ids.size()) + " tokens and " +
                                         std::to_string(example.labels.size()) + " labels");
  const auto narrow = [](std::int64_t id) { return static_cast<std::int32_t>(id); };
  if (labels_.empty() && example.labels != example.input_ids) labels_ = ids_;
  const bool has_labels = !labels_.empty() || example.labels != example.input_ids;
  std::transform(example.input_ids.begin(), example.input_ids.end(), std::back_inserter(ids_),
                 narrow);
  if (has_labels)
    std::transform(example.labels.begin(), example.labels.end(), std::back_inserter(labels_),
                   narrow);
  ends_.push_back(ids_.size());
  append_origin(example.origin);
  total_tokens += static_cast<std::int64_t>(example.input_ids.size());
  if (label_use == LabelUse::sequence)
    ++supervised_tokens;
  else
    supervised_tokens +=
        std::count_if(example.labels.begin() + (label_use == LabelUse::next_token ? 1 : 0),
                      example.labels.end(), [](std::int64_t label) { return label != kNoLabel; });
}

void Dataset::append_origin(std::string_view origin) {
  constexpr std::size_t kMostDigits = 18;
  const std::size_t digits = origin.size() - 1 - origin.find_last_not_of("0123456789");
  const std::string_view number = origin.substr(origin.size() - digits);
  const bool has_number =
      digits != 0 && digits <= kMostDigits && (digits == 1 || number.front() != '0');
  const std::string_view start = has_number ? origin.substr(0, origin.size() - digits) : origin;
  if (origin_starts_.empty() || origin_starts_.back() != start) origin_starts_.emplace_back(start);
  origins_.push_back(
      {origin_starts_.size() - 1, has_number ? std::stoll(std::string(number)) : kNoNumber});
}

std::string Dataset::origin_of(std::size_t index) const {
  const Origin& origin = origins_.at(index);
  const std::string& start = origin_starts_[origin.start];
  return origin.number == kNoNumber ? start : start + std::to_string(origin.number);
}

void Dataset::set_table(Tensor table_x, Tensor table_y, std::string table_origin) {
  if (table_x.dtype != DType::f32 || table_x.shape.size() != 2)
    refuse_table(table_origin, "x is " + std::string(to_string(table_x.dtype)) + " " +
                                   shape_to_string(table_x.shape) +
                                   ", expected F32 [rows, features]");
  const bool is_classes = table_y.dtype == DType::i64 && table_y.shape.size() == 1;
  const bool is_values = table_y.dtype == DType::f32 && table_y.shape.size() == 2;
  if (!is_classes && !is_values)
    refuse_table(table_origin, "y is " + std::string(to_string(table_y.dtype)) + " " +
                                   shape_to_string(table_y.shape) +
                                   ", expected I64 [rows] or F32 [rows, outputs]");
  if (table_x.shape[0] != table_y.shape[0])
    refuse_table(table_origin, "x has " + std::to_string(table_x.shape[0]) + " rows and y " +
                                   std::to_string(table_y.shape[0]));
  is_tabular = true;
  rows_ = static_cast<std::size_t>(table_x.shape[0]);
  x = std::move(table_x);
  y = std::move(table_y);
  table_origin_ = std::move(table_origin);
}

namespace {

// Batches a window of similar lengths is made of.
constexpr std::uint64_t kWindow = 50;

void permute(std::vector<std::size_t>& order, const CounterRandom& random) {
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(random.below(i, i))]);
}

}  // namespace

std::vector<std::size_t> epoch_order(std::size_t size, std::uint64_t epoch, std::uint64_t seed,
                                     bool shuffle) {
  std::vector<std::size_t> order(size);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (!shuffle) return order;
  permute(order, CounterRandom(seed, stream_of("order of epoch " + std::to_string(epoch))));
  return order;
}

BatchPlan::BatchPlan(std::size_t size, std::size_t batch_size, std::uint64_t seed, bool shuffle)
    : size_(size), batch_size_(batch_size), seed_(seed), shuffle_(shuffle) {
  if (size == 0) throw Error(ErrorKind::usage, "cannot plan batches: the data set is empty");
  if (batch_size == 0)
    throw Error(ErrorKind::usage, "cannot plan batches: the batch size is 0, expected at least 1");
}

void BatchPlan::group_by_length(std::vector<std::int64_t> lengths) {
  lengths_ = std::move(lengths);
}

std::vector<std::size_t> BatchPlan::batch(std::uint64_t k) {
  const std::uint64_t first = k * batch_size_;
  const std::uint64_t epoch = first / size_;
  const bool is_of_one_epoch = (first + batch_size_ - 1) / size_ == epoch;
  if (lengths_.empty() || !is_of_one_epoch) return positions(first, batch_size_);
  return grouped_batch(k, epoch);
}

// Examples at these places of the endless sequence of epochs.
std::vector<std::size_t> BatchPlan::positions(std::uint64_t first, std::uint64_t count) {
  std::vector<std::size_t> indices;
  indices.reserve(count);
  for (std::uint64_t position = first; position < first + count; ++position) {
    const std::uint64_t epoch = position / size_;
    if (order_.empty() || (shuffle_ && epoch != cached_epoch_)) {
      order_ = epoch_order(size_, epoch, seed_, shuffle_);
      cached_epoch_ = epoch;
    }
    indices.push_back(order_[position % size_]);
  }
  return indices;
}

// Batches that reach into the next epoch are in no window, so that each epoch keeps its examples.
std::vector<std::size_t> BatchPlan::grouped_batch(std::uint64_t k, std::uint64_t epoch) {
  const std::uint64_t begin = (epoch * size_ + batch_size_ - 1) / batch_size_;
  const std::uint64_t end = (epoch + 1) * size_ / batch_size_;
  const std::uint64_t window = begin + (k - begin) / kWindow * kWindow;
  const std::uint64_t count = std::min(kWindow, end - window);
  if (window_.empty() || window != cached_window_) {
    window_ = positions(window * batch_size_, count * batch_size_);
    std::stable_sort(window_.begin(), window_.end(),
                     [&](std::size_t a, std::size_t b) { return lengths_[a] > lengths_[b]; });
    cached_window_ = window;
  }
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  permute(order,
          CounterRandom(seed_, stream_of("order of batches from " + std::to_string(window))));
  const auto first = window_.begin() + static_cast<std::ptrdiff_t>(order[k - window] * batch_size_);
  return {first, first + static_cast<std::ptrdiff_t>(batch_size_)};
}

std::uint64_t BatchPlan::batches_for(double epochs) const {
  const double examples = std::ceil(epochs * static_cast<double>(size_));
  return static_cast<std::uint64_t>(std::ceil(examples / static_cast<double>(batch_size_)));
}

}  // namespace lora
