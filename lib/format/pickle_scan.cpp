#include "lora/format/pickle_scan.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>
#include <unordered_map>

#include "format/byte_cursor.h"
#include "format/in_quotes.h"
#include "format/pickle_globals.h"
#include "format/pickle_walk.h"
#include "format/zip_reader.h"
#include "lora/base/error.h"
#include "lora/base/mapped_file.h"

namespace lora {
namespace {

using pickle::Argument;
using pickle::Step;

constexpr std::size_t kMaxNames = 1000;
constexpr std::size_t kMaxStack = std::size_t{1} << 20;
constexpr std::size_t kMaxPickles = 16;  // torch.save's old form is a sequence of five
constexpr std::string_view kZipStart("PK\x03\x04", 4);

/// What the walk knows of a value: its text, or nothing.
using Known = std::optional<std::string_view>;

class Walk {
 public:
  Walk(std::span<const std::byte> stream, PickleScan& scan) : cursor_(stream), scan_(scan) {}

  /// Walks one pickle; true at its STOP.
  bool run() {
    while (cursor_.remaining() > 0) {
      const std::uint8_t code = cursor_.u8();
      const Step* step = pickle::find_step(code);
      if (step == nullptr)
        return stop("byte " + std::to_string(cursor_.position() - 1) + " is no opcode of a pickle");
      if (!apply(code, *step)) return false;
      if (code == '.') return true;
    }
    return stop("the pickle ends without STOP");
  }

  std::size_t consumed() const { return cursor_.position(); }

 private:
  bool stop(std::string reason) {
    if (scan_.incomplete.empty()) scan_.incomplete = std::move(reason);
    return false;
  }

  bool apply(std::uint8_t code, const Step& step) {
    Known text = read_argument(step.argument);
    if (!cursor_.is_good()) return stop("the pickle ends in the middle of an opcode");
    switch (code) {
      case '(':
        marks_.push_back(stack_.size());
        return marks_.size() <= kMaxStack || stop("more than 1048576 open marks");
      case 'c':
      case 'i':
        add(first_line_, text);
        break;
      case 0x93: {
        const Known name = pop();
        add(pop(), name);
        return push(std::nullopt);
      }
      case 0x82:
      case 0x83:
      case 0x84:
        add_foreign("(extension registry)");
        break;
      case '2':
        return push(stack_.empty() ? Known() : stack_.back());
      case 'p':
        memo_[number_of(text)] = top();
        return true;
      case 'q':
      case 'r':
        memo_[number_] = top();
        return true;
      case 0x94:
        memo_[memo_.size()] = top();
        return true;
      case 'g':
        return push(recall(number_of(text)));
      case 'h':
      case 'j':
        return push(recall(number_));
      default:
        break;
    }
    if (step.pops_to_mark) pop_to_mark();
    for (int i = 0; i < step.pops; ++i) pop();
    return step.pushes == 0 || push(step.is_text ? text : Known());
  }

  Known read_argument(Argument argument) {
    switch (argument) {
      case Argument::none:
        return std::nullopt;
      case Argument::bytes1:
        number_ = cursor_.u8();
        return std::nullopt;
      case Argument::bytes2:
        number_ = cursor_.u16();
        return std::nullopt;
      case Argument::bytes4:
        number_ = cursor_.u32();
        return std::nullopt;
      case Argument::bytes8:
        number_ = cursor_.u64();
        return std::nullopt;
      case Argument::counted1:
        return cursor_.text(cursor_.u8());
      case Argument::counted4:
        return cursor_.text(cursor_.u32());
      case Argument::counted8:
        return cursor_.text(cursor_.u64());
      case Argument::line:
        return unquoted(line());
      case Argument::two_lines:
        first_line_ = line();
        return line();
    }
    return std::nullopt;
  }

  std::string_view line() {
    ByteCursor ahead = cursor_;
    const std::string_view rest = ahead.text(ahead.remaining());
    const auto end = rest.find('\n');
    const std::string_view text = rest.substr(0, end);
    cursor_.take(end == std::string_view::npos ? rest.size() + 1 : end + 1);
    return text;
  }

  static std::string_view unquoted(std::string_view text) {
    const bool is_quoted = text.size() >= 2 && (text.front() == '\'' || text.front() == '"') &&
                           text.back() == text.front();
    return is_quoted ? text.substr(1, text.size() - 2) : text;
  }

  static std::uint64_t number_of(const Known& text) {
    std::uint64_t number = 0;
    if (text) std::from_chars(text->data(), text->data() + text->size(), number);
    return number;
  }

  bool push(Known value) {
    if (stack_.size() >= kMaxStack) return stop("more than 1048576 values on the stack");
    stack_.push_back(value);
    return true;
  }
  Known top() const { return stack_.empty() ? Known() : stack_.back(); }
  // Underflow is the unpickler's problem; the names seen so far stay.
  Known pop() {
    if (stack_.empty()) return std::nullopt;
    if (!marks_.empty() && marks_.back() >= stack_.size()) {
      marks_.pop_back();
      return std::nullopt;
    }
    const Known value = stack_.back();
    stack_.pop_back();
    return value;
  }
  void pop_to_mark() {
    if (marks_.empty()) return;
    stack_.resize(std::min(stack_.size(), marks_.back()));
    marks_.pop_back();
  }
  Known recall(std::uint64_t index) const {
    const auto found = memo_.find(index);
    return found == memo_.end() ? Known() : found->second;
  }

  void add(const Known& module, const Known& name) {
    if (!module || !name) return add_foreign("(computed)");
    // Other bytes than a pickle's can look like the opcode; Python could not import such a name.
    if (!could_be_imported(*module) || !could_be_imported(*name)) return;
    const std::string full = printable(std::string(*module) + "." + std::string(*name));
    if (pickle::find_global(*module, *name)) {
      add_to(scan_.tensors, full);
    } else {
      add_foreign(full);
    }
  }
  static bool could_be_imported(std::string_view name) {
    return !name.empty() && std::none_of(name.begin(), name.end(), [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return byte <= ' ' || byte == 0x7F;
    });
  }
  void add_foreign(const std::string& name) { add_to(scan_.foreign, name); }
  void add_to(std::vector<std::string>& list, const std::string& name) {
    if (std::find(list.begin(), list.end(), name) != list.end()) return;
    if (list.size() >= kMaxNames) {
      stop("more than 1000 names");
    } else {
      list.push_back(name);
    }
  }

  ByteCursor cursor_;
  PickleScan& scan_;
  std::vector<Known> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, Known> memo_;
  std::string_view first_line_;
  std::uint64_t number_ = 0;
};

bool starts_with_protocol(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x80} && bytes[1] <= std::byte{5};
}

void scan_sequence(std::span<const std::byte> bytes, PickleScan& scan) {
  for (std::size_t i = 0; i < kMaxPickles && !bytes.empty(); ++i) {
    PickleScan part;
    Walk walk(bytes, part);
    const bool is_whole = walk.run();
    if (i == 0)
      scan.is_pickle =
          is_whole || starts_with_protocol(bytes) || !part.tensors.empty() || !part.foreign.empty();
    // Behind the pickles of the old form come the storages, which are none.
    if (!is_whole && i > 0) return;
    for (auto [from, to] :
         {std::pair{&part.tensors, &scan.tensors}, std::pair{&part.foreign, &scan.foreign}})
      for (std::string& name : *from)
        if (std::find(to->begin(), to->end(), name) == to->end()) to->push_back(std::move(name));
    if (!is_whole) {
      scan.incomplete = part.incomplete;
      return;
    }
    bytes = bytes.subspan(walk.consumed());
  }
}

void scan_archive(std::span<const std::byte> bytes, PickleScan& scan) {
  scan.is_pickle = true;
  try {
    AllocationBudget budget(bytes.size());
    const ZipReader zip(bytes, budget);
    for (const ZipEntry& entry : zip.entries())
      if (entry.name.ends_with(".pkl")) scan_sequence(entry.payload, scan);
    scan.is_pickle = true;
  } catch (const Error& error) {
    scan.incomplete = error.message();
  }
}

}  // namespace

PickleScan scan_pickle(const std::filesystem::path& path) {
  PickleScan scan;
  try {
    const auto file = MappedFile::open(path);
    const std::string_view start(reinterpret_cast<const char*>(file->bytes().data()),
                                 std::min<std::size_t>(file->bytes().size(), kZipStart.size()));
    if (start == kZipStart) {
      scan_archive(file->bytes(), scan);
    } else {
      scan_sequence(file->bytes(), scan);
    }
  } catch (const Error&) {
    return {};
  }
  return scan.is_pickle ? scan : PickleScan{};
}

}  // namespace lora
