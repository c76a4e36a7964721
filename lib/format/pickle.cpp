#include "format/pickle.h"

#include <algorithm>
#include <bit>

#include "format/byte_cursor.h"
#include "format/in_quotes.h"
#include "format/pickle_calls.h"
#include "format/pickle_opcodes.h"

namespace lora::pickle {
namespace {

constexpr std::size_t kMaxStack = std::size_t{1} << 20;
constexpr std::size_t kMaxMarks = 1000;
constexpr std::size_t kMaxText = std::size_t{16} << 20;
constexpr std::size_t kMaxName = 1024;
constexpr std::size_t kMaxArguments = 16;
constexpr std::size_t kMaxListedNames = 8;
constexpr int kNewestProtocol = 5;
constexpr Ref kUnset = ~Ref{0};

class Machine {
 public:
  Machine(std::span<const std::byte> stream, AllocationBudget& budget)
      : cursor_(stream), builder_{document_, budget} {}

  Document run() {
    try {
      while (step()) {
      }
    } catch (const Error&) {
      // Once a foreign name was seen, that is the news, whatever else is wrong with the stream.
      if (foreign_.empty()) throw;
    }
    if (!foreign_.empty()) throw foreign_error();
    document_.consumed = cursor_.position();
    return std::move(document_);
  }

 private:
  /// Executes one opcode; false after STOP.
  bool step() {
    const auto opcode = static_cast<Opcode>(cursor_.u8());
    require_bytes();
    switch (opcode) {
      case Opcode::proto:
        read_protocol();
        return true;
      case Opcode::frame:
        if (cursor_.u64() > cursor_.remaining()) throw malformed("has a frame beyond its end");
        return true;
      case Opcode::stop:
        document_.root = pop();
        if (!stack_.empty() || !marks_.empty()) throw malformed("ends with values left over");
        return false;
      case Opcode::mark:
        if (marks_.size() >= kMaxMarks) throw unsupported("nesting of more than 1000 levels");
        marks_.push_back(stack_.size());
        return true;
      case Opcode::pop:
        pop();
        return true;
      case Opcode::pop_mark:
        pop_to_mark();
        return true;
      case Opcode::global:
        push_named();
        return true;
      case Opcode::stack_global: {
        const auto name = pop_text();
        push_global(pop_text(), name);
        return true;
      }
      case Opcode::inst: {
        push_named();
        const Ref callee = pop();
        invoke(callee, pop_to_mark());
        return true;
      }
      case Opcode::obj: {
        const auto items = pop_to_mark();
        if (items.empty()) throw malformed("builds an object without a class");
        invoke(items[0], {items.begin() + 1, items.end()});
        return true;
      }
      case Opcode::reduce:
      case Opcode::newobj: {
        const Ref args = pop();
        call_with(pop(), args, opcode == Opcode::newobj);
        return true;
      }
      case Opcode::newobj_ex: {
        pop();
        const Ref args = pop();
        call_with(pop(), args, true);
        return true;
      }
      case Opcode::build:
        build();
        return true;
      case Opcode::binpersid: {
        const Ref id = pop();
        push_ref(load_storage(builder_, id));
        return true;
      }
      default:
        if (!push_literal(opcode) && !change_container(opcode) && !use_memo(opcode))
          throw unsupported(
              "opcode that torch.save does not write: " + std::to_string(static_cast<int>(opcode)) +
              " at byte " + std::to_string(cursor_.position() - 1));
        return true;
    }
  }

  bool push_literal(Opcode opcode) {
    switch (opcode) {
      case Opcode::none:
        return push(None{});
      case Opcode::newtrue:
        return push(true);
      case Opcode::newfalse:
        return push(false);
      case Opcode::binint1:
        return push(std::int64_t{cursor_.u8()});
      case Opcode::binint2:
        return push(std::int64_t{cursor_.u16()});
      case Opcode::binint:
        return push(std::int64_t{static_cast<std::int32_t>(cursor_.u32())});
      case Opcode::long1:
        return push_long(cursor_.u8());
      case Opcode::long4:
        return push_long(cursor_.u32());
      case Opcode::binfloat:
        // The one big-endian number of the format.
        return push(std::bit_cast<double>(__builtin_bswap64(cursor_.u64())));
      case Opcode::short_binstring:
      case Opcode::short_binunicode:
        return push_text(cursor_.u8());
      case Opcode::binstring:
      case Opcode::binunicode:
        return push_text(cursor_.u32());
      case Opcode::binunicode8:
        return push_text(cursor_.u64());
      case Opcode::short_binbytes:
        return push_bytes(cursor_.u8());
      case Opcode::binbytes:
        return push_bytes(cursor_.u32());
      case Opcode::binbytes8:
      case Opcode::bytearray8:
        return push_bytes(cursor_.u64());
      case Opcode::empty_dict:
        return push(Dict{});
      case Opcode::empty_list:
        return push(List{});
      case Opcode::empty_tuple:
        return push(Tuple{});
      case Opcode::empty_set:
        return push(Inert{});
      default:
        return false;
    }
  }

  bool change_container(Opcode opcode) {
    switch (opcode) {
      case Opcode::tuple:
        return push_tuple_to_mark();
      case Opcode::tuple1:
        return push_tuple(1);
      case Opcode::tuple2:
        return push_tuple(2);
      case Opcode::tuple3:
        return push_tuple(3);
      case Opcode::append: {
        const Ref item = pop();
        extend({item});
        return true;
      }
      case Opcode::appends:
        extend(pop_to_mark());
        return true;
      case Opcode::setitem: {
        const Ref value = pop();
        const Ref key = pop();
        insert({key, value});
        return true;
      }
      case Opcode::setitems:
        insert(pop_to_mark());
        return true;
      case Opcode::additems:
        pop_to_mark();
        require_inert(top(), "adds items to ");
        return true;
      case Opcode::frozenset:
        pop_to_mark();
        return push(Inert{});
      default:
        return false;
    }
  }

  bool use_memo(Opcode opcode) {
    switch (opcode) {
      case Opcode::binput:
        return store(cursor_.u8());
      case Opcode::long_binput:
        return store(cursor_.u32());
      case Opcode::memoize:
        return store(memoized_);
      case Opcode::binget:
        return recall(cursor_.u8());
      case Opcode::long_binget:
        return recall(cursor_.u32());
      default:
        return false;
    }
  }

  void require_bytes() const {
    if (!cursor_.is_good()) throw malformed("ends in the middle of an opcode");
  }

  void read_protocol() {
    const int protocol = cursor_.u8();
    require_bytes();
    if (protocol > kNewestProtocol)
      throw unsupported("protocol of " + std::to_string(protocol) + ", newer than 5");
  }

  // Protocol 2 names a global by two lines of text.
  std::string_view line() {
    ByteCursor ahead = cursor_;
    const std::string_view text = ahead.text(std::min<std::size_t>(ahead.remaining(), kMaxName));
    const auto end = text.find('\n');
    if (end == std::string_view::npos) throw malformed("has a global name without an end");
    cursor_.take(end + 1);
    return text.substr(0, end);
  }

  bool push_ref(Ref ref) {
    if (stack_.size() >= kMaxStack) throw unsupported("stack of more than 1048576 values");
    stack_.push_back(ref);
    return true;
  }
  bool push(Value value) {
    require_bytes();
    return push_ref(builder_.append(std::move(value)));
  }

  bool push_text(std::uint64_t length) {
    require_bytes();
    if (length > kMaxText && length <= cursor_.remaining())
      throw unsupported("string of " + std::to_string(length) + " bytes");
    return push(cursor_.text(length));
  }
  bool push_bytes(std::uint64_t length) {
    cursor_.take(length);
    return push(Inert{});
  }
  bool push_long(std::uint64_t length) {
    require_bytes();
    const std::string_view bytes = cursor_.text(length);
    if (bytes.size() > sizeof(std::int64_t)) return push(BigInt{bytes});
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    const bool is_negative = !bytes.empty() && (bytes.back() & 0x80) != 0;
    if (is_negative && bytes.size() < sizeof(value))
      value |= ~std::uint64_t{0} << (8 * bytes.size());
    return push(static_cast<std::int64_t>(value));
  }

  Ref pop() {
    const std::size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= floor) throw malformed("takes a value from an empty stack");
    const Ref ref = stack_.back();
    stack_.pop_back();
    return ref;
  }
  Ref top() const {
    const std::size_t floor = marks_.empty() ? 0 : marks_.back();
    if (stack_.size() <= floor) throw malformed("takes a value from an empty stack");
    return stack_.back();
  }
  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) throw malformed("has no mark where one is needed");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }
  std::string_view pop_text() {
    const auto* text = std::get_if<std::string_view>(&document_[pop()]);
    if (text == nullptr) throw malformed("names a global by something other than text");
    return *text;
  }

  bool push_tuple(std::size_t count) {
    std::vector<Ref> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    return push(Tuple{std::move(items)});
  }

  bool push_tuple_to_mark() {
    auto items = pop_to_mark();
    builder_.spend(items.size(), sizeof(Ref));
    return push(Tuple{std::move(items)});
  }

  void extend(const std::vector<Ref>& items) {
    Value& target = document_.values[top()];
    if (auto* list = std::get_if<List>(&target)) {
      builder_.spend(items.size(), kListItemBytes);
      list->items.insert(list->items.end(), items.begin(), items.end());
    } else {
      require_inert(top(), "appends to ");
    }
  }

  void insert(const std::vector<Ref>& items) {
    if (items.size() % 2 != 0) throw malformed("sets a key without a value");
    Value& target = document_.values[top()];
    if (auto* dict = std::get_if<Dict>(&target)) {
      builder_.spend(items.size() / 2, kDictItemBytes);
      for (std::size_t i = 0; i < items.size(); i += 2)
        dict->items.emplace_back(items[i], items[i + 1]);
    } else {
      require_inert(top(), "sets items of ");
    }
  }

  void require_inert(Ref ref, const char* action) const {
    const Value& value = document_[ref];
    if (!std::holds_alternative<Inert>(value) && !std::holds_alternative<Foreign>(value))
      throw malformed(action + std::string(describe(value)));
  }

  // Attributes of an OrderedDict (`_metadata` of a state dict) and of inert values are dropped.
  void build() {
    pop();
    const Value& target = document_[top()];
    if (!std::holds_alternative<Dict>(target)) require_inert(top(), "sets attributes of ");
  }

  void call_with(Ref callee, Ref args, bool makes_object) {
    if (std::holds_alternative<Foreign>(document_[callee])) {
      push(Foreign{});
      return;
    }
    if (makes_object) throw unsupported("object of a class that state dicts do not have");
    const auto* tuple = std::get_if<Tuple>(&document_[args]);
    if (tuple == nullptr) throw malformed("calls a function without a tuple of arguments");
    // No known function takes more; without this a short loop could copy a long tuple for ever.
    if (tuple->items.size() > kMaxArguments)
      throw malformed("calls a function with " + std::to_string(tuple->items.size()) +
                      " arguments");
    invoke(callee, std::vector<Ref>(tuple->items));
  }

  void invoke(Ref callee, const std::vector<Ref>& args) {
    if (std::holds_alternative<Foreign>(document_[callee])) {
      push(Foreign{});
      return;
    }
    const auto* global = std::get_if<Global>(&document_[callee]);
    if (global == nullptr) throw malformed("calls " + std::string(describe(document_[callee])));
    const Global known = *global;
    push_ref(call(builder_, known, args));
  }

  void push_named() {
    const std::string_view module = line();
    push_global(module, line());
  }

  void push_global(std::string_view module, std::string_view name) {
    if (const auto known = find_global(module, name)) {
      push(*known);
      return;
    }
    std::string full = printable(std::string(module) + '.' + std::string(name));
    if (std::find(foreign_.begin(), foreign_.end(), full) == foreign_.end()) {
      if (foreign_.size() < kMaxListedNames) {
        foreign_.push_back(std::move(full));
      } else {
        has_more_foreign_ = true;
      }
    }
    push(Foreign{});
  }

  Error foreign_error() const {
    std::string names;
    for (const std::string& name : foreign_) names += (names.empty() ? "" : ", ") + name;
    if (has_more_foreign_) names += " and others";
    return Error(ErrorKind::unsupported,
                 "refuses to run " + names + ": only tensors and plain containers are read")
        .with_hint(
            "nothing was executed; save the state_dict() alone, or convert it to safetensors "
            "where you trust it");
  }

  bool store(std::size_t index) {
    require_bytes();
    const Ref ref = top();
    if (index >= memo_.size()) {
      builder_.spend(index + 1 - memo_.size(), kListItemBytes);
      memo_.resize(index + 1, kUnset);
    }
    memo_[index] = ref;
    ++memoized_;
    return true;
  }
  bool recall(std::size_t index) {
    require_bytes();
    if (index >= memo_.size() || memo_[index] == kUnset)
      throw malformed("refers to a memo entry that was never set");
    return push_ref(memo_[index]);
  }

  ByteCursor cursor_;
  Document document_;
  Builder builder_;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;
  std::vector<Ref> memo_;
  std::size_t memoized_ = 0;
  std::vector<std::string> foreign_;
  bool has_more_foreign_ = false;
};

}  // namespace

Document parse(std::span<const std::byte> stream, AllocationBudget& budget) {
  return Machine(stream, budget).run();
}

}  // namespace lora::pickle
