#include "format/pickle_walk.h"

#include <array>

namespace lora::pickle {
namespace {

using enum Argument;

// code, argument, pops, pops_to_mark, pushes, is_text
constexpr auto kSteps = std::to_array<Step>({
    {'(', none, 0, false, 0, false},       // MARK
    {'.', none, 1, false, 0, false},       // STOP
    {'0', none, 1, false, 0, false},       // POP
    {'1', none, 0, true, 0, false},        // POP_MARK
    {'2', none, 0, false, 1, false},       // DUP
    {'F', line, 0, false, 1, false},       // FLOAT
    {'I', line, 0, false, 1, false},       // INT
    {'J', bytes4, 0, false, 1, false},     // BININT
    {'K', bytes1, 0, false, 1, false},     // BININT1
    {'L', line, 0, false, 1, false},       // LONG
    {'M', bytes2, 0, false, 1, false},     // BININT2
    {'N', none, 0, false, 1, false},       // NONE
    {'P', line, 0, false, 1, false},       // PERSID
    {'Q', none, 1, false, 1, false},       // BINPERSID
    {'R', none, 2, false, 1, false},       // REDUCE
    {'S', line, 0, false, 1, true},        // STRING
    {'T', counted4, 0, false, 1, true},    // BINSTRING
    {'U', counted1, 0, false, 1, true},    // SHORT_BINSTRING
    {'V', line, 0, false, 1, true},        // UNICODE
    {'X', counted4, 0, false, 1, true},    // BINUNICODE
    {'B', counted4, 0, false, 1, false},   // BINBYTES
    {'C', counted1, 0, false, 1, false},   // SHORT_BINBYTES
    {'G', bytes8, 0, false, 1, false},     // BINFLOAT
    {'a', none, 1, false, 0, false},       // APPEND
    {'b', none, 1, false, 0, false},       // BUILD
    {'c', two_lines, 0, false, 1, false},  // GLOBAL
    {'d', none, 0, true, 1, false},        // DICT
    {'}', none, 0, false, 1, false},       // EMPTY_DICT
    {'e', none, 0, true, 0, false},        // APPENDS
    {'g', line, 0, false, 1, false},       // GET
    {'h', bytes1, 0, false, 1, false},     // BINGET
    {'i', two_lines, 0, true, 1, false},   // INST
    {'j', bytes4, 0, false, 1, false},     // LONG_BINGET
    {'l', none, 0, true, 1, false},        // LIST
    {']', none, 0, false, 1, false},       // EMPTY_LIST
    {'o', none, 0, true, 1, false},        // OBJ
    {'p', line, 0, false, 0, false},       // PUT
    {'q', bytes1, 0, false, 0, false},     // BINPUT
    {'r', bytes4, 0, false, 0, false},     // LONG_BINPUT
    {'s', none, 2, false, 0, false},       // SETITEM
    {'t', none, 0, true, 1, false},        // TUPLE
    {')', none, 0, false, 1, false},       // EMPTY_TUPLE
    {'u', none, 0, true, 0, false},        // SETITEMS
    {0x80, bytes1, 0, false, 0, false},    // PROTO
    {0x81, none, 2, false, 1, false},      // NEWOBJ
    {0x82, bytes1, 0, false, 1, false},    // EXT1
    {0x83, bytes2, 0, false, 1, false},    // EXT2
    {0x84, bytes4, 0, false, 1, false},    // EXT4
    {0x85, none, 1, false, 1, false},      // TUPLE1
    {0x86, none, 2, false, 1, false},      // TUPLE2
    {0x87, none, 3, false, 1, false},      // TUPLE3
    {0x88, none, 0, false, 1, false},      // NEWTRUE
    {0x89, none, 0, false, 1, false},      // NEWFALSE
    {0x8a, counted1, 0, false, 1, false},  // LONG1
    {0x8b, counted4, 0, false, 1, false},  // LONG4
    {0x8c, counted1, 0, false, 1, true},   // SHORT_BINUNICODE
    {0x8d, counted8, 0, false, 1, true},   // BINUNICODE8
    {0x8e, counted8, 0, false, 1, false},  // BINBYTES8
    {0x8f, none, 0, false, 1, false},      // EMPTY_SET
    {0x90, none, 0, true, 0, false},       // ADDITEMS
    {0x91, none, 0, true, 1, false},       // FROZENSET
    {0x92, none, 3, false, 1, false},      // NEWOBJ_EX
    {0x93, none, 2, false, 1, false},      // STACK_GLOBAL
    {0x94, none, 0, false, 0, false},      // MEMOIZE
    {0x95, bytes8, 0, false, 0, false},    // FRAME
    {0x96, counted8, 0, false, 1, false},  // BYTEARRAY8
    {0x97, none, 0, false, 1, false},      // NEXT_BUFFER
    {0x98, none, 1, false, 1, false},      // READONLY_BUFFER
});

constexpr std::array<std::int8_t, 256> index_by_code() {
  std::array<std::int8_t, 256> index{};
  for (auto& entry : index) entry = -1;
  for (std::size_t i = 0; i < kSteps.size(); ++i)
    index[kSteps[i].code] = static_cast<std::int8_t>(i);
  return index;
}
constexpr auto kIndex = index_by_code();

}  // namespace

const Step* find_step(std::uint8_t code) {
  return kIndex[code] < 0 ? nullptr : &kSteps[static_cast<std::size_t>(kIndex[code])];
}

}  // namespace lora::pickle
