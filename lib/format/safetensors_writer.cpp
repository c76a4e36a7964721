#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "format/in_quotes.h"
#include "format/utf8.h"
#include "lora/base/checked.h"
#include "lora/base/error.h"
#include "lora/format/json.h"
#include "lora/format/safetensors.h"

namespace lora {
namespace {

constexpr std::size_t kMaxHeader = 100'000'000;
constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

using SourceOrder = std::vector<const TensorSource*>;

Error cannot_write(const TensorSource& source, ErrorKind kind, const std::string& reason) {
  return Error(kind, "cannot write tensor " + in_quotes(source.name) + ": " + reason)
      .in_tensor(source.name);
}

std::uint64_t byte_size(const TensorSource& source) {
  const auto count = checked_numel(source.shape);
  const auto bits = count ? checked_mul(*count, bits_of(source.dtype)) : std::nullopt;
  if (!bits || *bits % 8 != 0)
    throw cannot_write(source, ErrorKind::unsupported,
                       "found " + std::string(to_string(source.dtype)) + " of shape " +
                           shape_to_string(source.shape) + ", expected a whole number of bytes");
  return *bits / 8;
}

SourceOrder file_order(const std::vector<TensorSource>& tensors) {
  SourceOrder order;
  order.reserve(tensors.size());
  for (const TensorSource& source : tensors) order.push_back(&source);
  std::stable_sort(order.begin(), order.end(), [](const TensorSource* a, const TensorSource* b) {
    return a->dtype != b->dtype ? a->dtype > b->dtype : a->name < b->name;
  });
  return order;
}

void check_names(const std::vector<TensorSource>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorSource& source : tensors) {
    if (source.name == "__metadata__")
      throw cannot_write(source, ErrorKind::unsupported, "the format reserves this name");
    if (!is_utf8(source.name))
      throw cannot_write(source, ErrorKind::unsupported, "its name is not valid UTF-8");
    names.push_back(source.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    throw Error(ErrorKind::internal,
                "cannot write tensor " + in_quotes(*twice) + ": given twice, expected unique names")
        .in_tensor(std::string(*twice));
}

void append_metadata(std::string& header, const Metadata& metadata) {
  JsonObject object;
  for (const auto& [key, value] : metadata) object[key] = value;
  header += "\"__metadata__\":" + dump_json(std::move(object), kCompactStyle);
}

struct Layout {
  std::string header;  // length, JSON and padding
  std::uint64_t data_bytes = 0;
};

Layout lay_out(const SourceOrder& order, const Metadata* metadata) {
  Layout layout;
  std::string& header = layout.header;
  header.assign(8, '\0');
  header += '{';
  if (metadata != nullptr) append_metadata(header, *metadata);
  for (const TensorSource* source : order) {
    const std::uint64_t begin = layout.data_bytes;
    const auto end = checked_add(begin, byte_size(*source));
    if (!end)
      throw cannot_write(*source, ErrorKind::unsupported, "the file would exceed 2^64 bytes");
    layout.data_bytes = *end;
    if (header.size() > 9) header += ',';
    header += dump_json(Json(source->name), kCompactStyle) + ":{\"dtype\":\"";
    header += to_string(source->dtype);
    header += "\",\"shape\":[";
    for (std::size_t i = 0; i < source->shape.size(); ++i) {
      if (i != 0) header += ',';
      header += std::to_string(source->shape[i]);
    }
    header += "],\"data_offsets\":[" + std::to_string(begin) + ',' + std::to_string(*end) + "]}";
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = header.size() - 8;
  if (length > kMaxHeader)
    throw Error(ErrorKind::unsupported, "cannot write a safetensors header of " +
                                            std::to_string(length) + " bytes, expected at most " +
                                            std::to_string(kMaxHeader));
  for (std::size_t i = 0; i < 8; ++i) header[i] = static_cast<char>(length >> (8 * i));
  return layout;
}

// Gathers small tensors into large writes; large tensors pass through uncopied.
class Gather {
 public:
  explicit Gather(WritableFile& file) : file_(file) { buffer_.reserve(kBufferBytes); }

  void write(std::span<const std::byte> bytes) {
    if (buffer_.size() + bytes.size() > kBufferBytes) flush();
    if (bytes.size() > kBufferBytes) {
      file_.write(bytes);
    } else {
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
    }
  }

  void flush() {
    if (!buffer_.empty()) file_.write(buffer_);
    buffer_.clear();
  }

 private:
  WritableFile& file_;
  std::vector<std::byte> buffer_;
};

Tensor load_checked(const TensorSource& source) {
  Tensor tensor = source.load();
  if (tensor.dtype != source.dtype || tensor.shape != source.shape ||
      tensor.bytes.size() != byte_size(source))
    throw cannot_write(
        source, ErrorKind::internal,
        "its source gave " + std::string(to_string(tensor.dtype)) + " of shape " +
            shape_to_string(tensor.shape) + " in " + std::to_string(tensor.bytes.size()) +
            " bytes, expected " + std::string(to_string(source.dtype)) + " of shape " +
            shape_to_string(source.shape) + " in " + std::to_string(byte_size(source)));
  return tensor;
}

void write_streamed(const TensorSource& source, Gather& out) {
  std::uint64_t written = 0;
  source.stream([&](std::span<const std::byte> bytes) {
    written += bytes.size();
    out.write(bytes);
  });
  if (written != byte_size(source))
    throw cannot_write(source, ErrorKind::internal,
                       "its source gave " + std::to_string(written) + " bytes, expected " +
                           std::to_string(byte_size(source)));
}

}  // namespace

const Metadata& pytorch_metadata() {
  static const Metadata metadata{{"format", "pt"}};
  return metadata;
}

std::vector<TensorSource> sources_of(const TensorMap& tensors) {
  std::vector<TensorSource> sources;
  sources.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors)
    sources.push_back({name, tensor.dtype, tensor.shape, [copy = tensor] { return copy; }});
  return sources;
}

std::uint64_t safetensors_size(const std::vector<TensorSource>& tensors, const Metadata* metadata) {
  const Layout layout = lay_out(file_order(tensors), metadata);
  const auto size = checked_add(layout.header.size(), layout.data_bytes);
  if (!size) throw Error(ErrorKind::unsupported, "a safetensors file would exceed 2^64 bytes");
  return *size;
}

void write_safetensors(WritableFile& file, std::vector<TensorSource> tensors,
                       const Metadata* metadata) {
  check_names(tensors);
  const SourceOrder order = file_order(tensors);
  Gather out(file);
  out.write(std::as_bytes(std::span<const char>(lay_out(order, metadata).header)));
  for (const TensorSource* source : order) {
    if (source->stream)
      write_streamed(*source, out);
    else
      out.write(load_checked(*source).bytes);
  }
  out.flush();
}

void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const Metadata* metadata, const WriteOptions& options) {
  write_file_atomically(path, options, [&](WritableFile& file) {
    write_safetensors(file, sources_of(tensors), metadata);
  });
}

}  // namespace lora
