#include "format/pickle.h"

#include <limits>

#include "format/archive_bytes.h"
#include "format/pickle_writer.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;
namespace pickle = lora::pickle;

namespace {

/// Parses "PROTO 2, body, STOP"; the stream outlives the document as `last_stream`.
class Parsed {
 public:
  explicit Parsed(std::string body)
      : stream_(p_stream(body)), document_(pickle::parse(bytes_of(stream_), plenty())) {}
  template <typename T>
  const T& root() const {
    return std::get<T>(document_.root_value());
  }
  const pickle::Document& document() const { return document_; }
  std::size_t stream_size() const { return stream_.size(); }

 private:
  std::string stream_;
  pickle::Document document_;
};

void require_refused(ErrorKind kind, std::string_view part, const std::string& body) {
  const std::string stream = p_stream(body);
  require_error(kind, part, [&] { pickle::parse(bytes_of(stream), plenty()); });
}

const std::string kStorage = p_storage("FloatStorage", "0", 6);
const std::string kSystem = p_global("os", "system");

}  // namespace

TEST_CASE("numbers keep their value") {
  REQUIRE(Parsed("K\xff").root<std::int64_t>() == 255);
  REQUIRE(Parsed("M\xff\xff").root<std::int64_t>() == 65535);
  REQUIRE(Parsed("J" + little(0xFFFFFFFB, 4)).root<std::int64_t>() == -5);
  REQUIRE(Parsed("\x8a" + std::string(1, '\0')).root<std::int64_t>() == 0);
  REQUIRE(Parsed("\x8a\x01\xff").root<std::int64_t>() == -1);
  REQUIRE(Parsed("\x8a\x02\xff" + std::string(1, '\0')).root<std::int64_t>() == 255);
  REQUIRE(Parsed("\x8a\x08" + little(1ull << 63, 8)).root<std::int64_t>() ==
          std::numeric_limits<std::int64_t>::min());
  REQUIRE(Parsed("\x8a\x09" + little(5, 8) + std::string(1, '\0'))
              .root<pickle::BigInt>()
              .bytes.size() == 9);
  REQUIRE(Parsed("\x8b" + little(2, 4) + little(300, 2)).root<std::int64_t>() == 300);
  REQUIRE(Parsed("G\x3f\xf8" + std::string(6, '\0')).root<double>() == 1.5);
  REQUIRE(Parsed("\x88").root<bool>());
  REQUIRE_FALSE(Parsed("\x89").root<bool>());
}

TEST_CASE("containers, the memo and text hold what the stream says") {
  const Parsed parsed("}q\x07(" + p_text("a") + "]q\x01(K\x01K\x02" + "e" + p_text("b") + "h\x01u");
  const auto& dict = parsed.root<pickle::Dict>();
  REQUIRE(dict.items.size() == 2);
  REQUIRE(std::get<std::string_view>(parsed.document()[dict.items[1].first]) == "b");
  REQUIRE(dict.items[0].second == dict.items[1].second);
  REQUIRE(std::get<pickle::List>(parsed.document()[dict.items[0].second]).items.size() == 2);
  REQUIRE(parsed.document().consumed == parsed.stream_size());
  REQUIRE(Parsed("K\x01K\x02K\x03\x87").root<pickle::Tuple>().items.size() == 3);
  REQUIRE(Parsed("U\x02hi").root<std::string_view>() == "hi");
}

TEST_CASE("newer protocols are read where they only pack data differently") {
  REQUIRE(Parsed("\x95" + little(3, 8) + "\x8c\x01x").root<std::string_view>() == "x");
  const Parsed parsed(
      "\x8c\x0b"
      "collections\x94\x8c\x0bOrderedDict\x94\x93\x94)R");
  REQUIRE(parsed.root<pickle::Dict>().items.empty());
  require_refused(ErrorKind::malformed, "frame beyond its end", "\x95" + little(1000, 8) + "N");
  require_error(ErrorKind::unsupported, "protocol of 6",
                [] { pickle::parse(bytes_of("\x80\x06N."), plenty()); });
}

TEST_CASE("attributes of an OrderedDict are dropped, in both spellings of its content") {
  const std::string ordered = p_global("collections", "OrderedDict");
  const Parsed parsed(ordered + ")R(" + p_text("k") + "K\x01u" + p_dict({{"_metadata", "N"}}) +
                      "b");
  REQUIRE(parsed.root<pickle::Dict>().items.size() == 1);
  const Parsed python2(p_call(ordered, {"](](U\x01"
                                        "kK\x01"
                                        "ee"}));
  REQUIRE(python2.root<pickle::Dict>().items.size() == 1);
  require_refused(ErrorKind::malformed, "without a list of pairs",
                  p_call(ordered, {"](K\x01"
                                   "e"}));
  require_refused(ErrorKind::malformed, "sets attributes of a list", "]Nb");
}

TEST_CASE("foreign globals are refused by name, all of them, and nothing is executed") {
  TempDir dir;
  const std::string command = "touch " + (dir / "executed").string();
  require_refused(ErrorKind::unsupported, "refuses to run os.system",
                  p_call(kSystem, {p_text(command)}));
  require_refused(ErrorKind::unsupported, "refuses to run os.system, builtins.eval",
                  p_call(kSystem, {p_call(p_global("builtins", "eval"), {p_text("1")})}));
  require_refused(ErrorKind::unsupported, "collections.defaultdict",
                  p_global("collections", "defaultdict") + ")R");
  REQUIRE(entry_count(dir.path()) == 0);
}

TEST_CASE("every way of calling a foreign global is refused by name") {
  const std::string refused = "refuses to run os.system";
  require_refused(ErrorKind::unsupported, refused, kSystem);
  require_refused(ErrorKind::unsupported, refused, kSystem + ")\x81");
  require_refused(ErrorKind::unsupported, refused, kSystem + ")}\x92");
  require_refused(ErrorKind::unsupported, refused, "(" + kSystem + "K\x01o");
  require_refused(ErrorKind::unsupported, refused, "(K\x01ios\nsystem\n");
  require_refused(ErrorKind::unsupported, refused, "U\x02osU\x06system\x93)R");
  require_refused(ErrorKind::unsupported, refused, "(" + kSystem + "d");
  require_refused(ErrorKind::unsupported, refused, kSystem + "}}b");
  require_refused(ErrorKind::unsupported, "torch._utils._rebuild_sparse_tensor",
                  p_global("torch._utils", "_rebuild_sparse_tensor") + ")R");
}

TEST_CASE("a message shows a hostile name on one printable line") {
  require_refused(ErrorKind::unsupported, "refuses to run a?[31m.b", p_global("a\x1b[31m", "b"));
  std::string many;
  for (int i = 0; i < 20; ++i) many += p_global("m", "n" + std::to_string(i));
  require_refused(ErrorKind::unsupported, "m.n7 and others", many);
}

TEST_CASE("opcodes that change what they may not are refused") {
  require_refused(ErrorKind::malformed, "sets items of a list", "]K\x01K\x01s");
  require_refused(ErrorKind::malformed, "sets items of an integer", "K\x01K\x01K\x01s");
  require_refused(ErrorKind::malformed, "appends to a dict",
                  "}K\x01"
                  "a");
  require_refused(ErrorKind::malformed, "adds items to a dict", "}(K\x01\x90");
  require_refused(ErrorKind::malformed, "key without a value", "}(K\x01u");
  require_refused(ErrorKind::malformed, "empty stack", "s");
  require_refused(ErrorKind::malformed, "empty stack", "K\x01(0");
  require_refused(ErrorKind::malformed, "no mark", "K\x01t");
  require_refused(ErrorKind::malformed, "values left over", "NN");
  require_refused(ErrorKind::malformed, "memo entry that was never set", "h\x05");
  require_refused(ErrorKind::unsupported, "more values than a file of its size justifies",
                  "Nr" + little(0xFFFFFFFF, 4));
  require_refused(ErrorKind::malformed, "calls an integer", "K\x01)R");
  require_refused(ErrorKind::malformed, "without a tuple of arguments",
                  p_global("torch", "Size") + "NR");
  require_refused(ErrorKind::unsupported, "opcode that torch.save does not write: 73", "I1\n");
  require_refused(ErrorKind::unsupported, "object of a class",
                  p_global("collections", "OrderedDict") + ")\x81");
}

// One value, put on the stack again and again.
std::string fetches(std::size_t count) {
  std::string body("Nq\0", 3);
  for (std::size_t i = 0; i < count; ++i) body.append("h\0", 2);
  return body;
}

TEST_CASE("the caps on marks, stack, arguments and values hold") {
  require_refused(ErrorKind::unsupported, "more than 1000 levels", std::string(1001, '('));
  require_refused(ErrorKind::unsupported, "stack of more than", fetches(1 << 20));
  const std::string long_tuple = "(" + std::string(17, 'N') + "t";
  require_refused(ErrorKind::malformed, "with 17 arguments",
                  p_global("torch", "device") + long_tuple + "R");
  // A list of 1,000 pairs that 9,000 calls copy.
  std::string body = p_global("collections", "OrderedDict") + "q" + std::string(1, '\0') + "0](";
  for (int i = 0; i < 1000; ++i) body += "NN\x86";
  body +=
      "e\x85q\x01"
      "0";
  for (int i = 0; i < 9000; ++i) body += std::string("h\0h\x01R0", 6);
  require_refused(ErrorKind::unsupported, "holds more values than a file of its size justifies",
                  body);
}

TEST_CASE("persistent ids are storages or nothing") {
  require_refused(ErrorKind::malformed, "not a storage", "NQ");
  require_refused(ErrorKind::malformed, "not a storage",
                  p_tuple({p_text("other"), p_global("torch", "FloatStorage"), p_text("0"),
                           p_text("cpu"), p_int(1)}) +
                      "Q");
  require_refused(ErrorKind::malformed, "not a storage",
                  p_tuple({p_text("storage"), p_global("torch", "Size"), p_text("0"), p_text("cpu"),
                           p_int(1)}) +
                      "Q");
  require_refused(ErrorKind::malformed, "storage size is negative",
                  p_storage("FloatStorage", "0", -1));
  require_refused(ErrorKind::unsupported, "view of another one",
                  p_tuple({p_text("storage"), p_global("torch", "FloatStorage"), p_text("0"),
                           p_text("cpu"), p_int(1), p_ints({1, 2, 3})}) +
                      "Q");
}

TEST_CASE("tensor arguments of the wrong kind are refused") {
  const auto v2 = p_global("torch._utils", "_rebuild_tensor_v2");
  require_refused(ErrorKind::malformed, "negative", p_tensor(kStorage, -1, {2}, {1}));
  require_refused(ErrorKind::malformed, "tensor shape is negative",
                  p_tensor(kStorage, 0, {-2}, {1}));
  require_refused(ErrorKind::malformed, "tensor stride is negative",
                  p_tensor(kStorage, 0, {2}, {-1}));
  require_refused(ErrorKind::malformed, "1 dimensions and 2 strides",
                  p_tensor(kStorage, 0, {2}, {1, 1}));
  require_refused(ErrorKind::malformed, "builds a tensor on None", p_tensor("N", 0, {2}, {1}));
  require_refused(ErrorKind::malformed, "with 1 arguments", p_call(v2, {kStorage}));
  require_refused(ErrorKind::malformed, "tensor shape is a list",
                  p_call(v2, {kStorage, p_int(0), "]", p_ints({1}), "\x89", "N"}));
  require_refused(
      ErrorKind::unsupported, "65 dimensions",
      p_tensor(kStorage, 0, std::vector<std::int64_t>(65, 1), std::vector<std::int64_t>(65, 1)));
  require_refused(ErrorKind::unsupported, "lazy conjugation",
                  p_call(v2, {kStorage, p_int(0), p_ints({2}), p_ints({1}), "\x89", "N",
                              p_dict({{"conj", "\x88"}})}));
  require_refused(ErrorKind::malformed, "tensor dtype is None",
                  p_call(p_global("torch._utils", "_rebuild_tensor_v3"),
                         {kStorage, p_int(0), p_ints({2}), p_ints({1}), "\x89", "N", "N"}));
  require_refused(
      ErrorKind::malformed, "builds a parameter from a string",
      p_call(p_global("torch._utils", "_rebuild_parameter"), {p_text("x"), "\x88", "N"}));
}

TEST_CASE("special tensor classes are built directly or not at all") {
  const auto from_type = p_global("torch._tensor", "_rebuild_from_type_v2");
  const auto v2 = p_global("torch._utils", "_rebuild_tensor_v2");
  const auto arguments = p_tuple({kStorage, p_int(0), p_ints({2}), p_ints({1}), "\x89", "N"});
  const Parsed parsed(p_call(from_type, {v2, p_global("torch", "Tensor"), arguments, "}"}));
  REQUIRE(parsed.document().tensors.size() == 1);
  require_refused(ErrorKind::unsupported, "special class",
                  p_call(from_type, {from_type, p_global("torch", "Tensor"), arguments, "}"}));
}

TEST_CASE("a stream cut at any byte is malformed") {
  const std::string whole = p_stream(p_dict({{"w", p_tensor(kStorage, 0, {2, 3}, {3, 1})}}));
  REQUIRE(pickle::parse(bytes_of(whole), plenty()).tensors.size() == 1);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    // A copy of exactly this length, so that a read beyond it is caught by the sanitizer.
    const std::vector<std::byte> cut(bytes_of(whole).begin(),
                                     bytes_of(whole).begin() + static_cast<std::ptrdiff_t>(length));
    require_error(ErrorKind::malformed, "pickle stream", [&] { pickle::parse(cut, plenty()); });
  }
}

TEST_CASE("the emitted stream is read back by the machine") {
  std::vector<pickle::PickledTensor> tensors;
  for (int i = 0; i < 2001; ++i)
    tensors.push_back({"t" + std::to_string(i),
                       i % 2 == 0 ? DType::bf16 : DType::u32,
                       {2, 70000, 3},
                       std::to_string(i / 2),
                       420000});
  tensors.push_back({"large", DType::f32, {1, std::int64_t{1} << 33}, "x", std::uint64_t{1} << 33});
  const std::string stream = pickle::write_state_dict(tensors);
  const pickle::Document document = pickle::parse(bytes_of(stream), plenty());
  REQUIRE(std::get<pickle::Dict>(document.root_value()).items.size() == 2002);
  REQUIRE(document.tensors.size() == 2002);
  REQUIRE(document.tensors[1].element->dtype == DType::u32);
  REQUIRE(document.tensors[1].strides == std::vector<std::int64_t>{210000, 3, 1});
  REQUIRE(document.storages[1].key == "0");
  REQUIRE(document.storages[1].count == 420000 * 4);
  REQUIRE(document.storages[1].element->bytes == 1);
  REQUIRE(document.storages[2].count == 420000);
  REQUIRE(document.tensors.back().shape.back() == std::int64_t{1} << 33);
  require_error(ErrorKind::unsupported, "dtype F4", [] {
    pickle::write_state_dict({{"a", DType::f4, {2}, "0", 2}});
  });
}
