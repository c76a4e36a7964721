// The shape of every opcode of Python's pickle protocols 0 to 5: its argument, and what it does to
// the stack. Enough to walk any pickle without giving it a meaning.
#pragma once

#include <cstdint>

namespace lora::pickle {

enum class Argument : std::uint8_t {
  none,
  bytes1,  ///< that many bytes, a little-endian number
  bytes2,
  bytes4,
  bytes8,
  counted1,  ///< a number of one byte, then as many bytes
  counted4,
  counted8,
  line,       ///< up to a line feed
  two_lines,  ///< two of them
};

struct Step {
  std::uint8_t code;
  Argument argument = Argument::none;
  int pops = 0;               ///< values taken, after everything above a mark when pops_to_mark
  bool pops_to_mark = false;  ///< takes the mark too
  int pushes = 0;             ///< values left behind
  bool is_text = false;       ///< the pushed value is the argument's text
};

/// Null for a byte that is no opcode.
const Step* find_step(std::uint8_t code);

}  // namespace lora::pickle
