// Every global name a pickle refers to, whether or not the reader of tensors would take the file.
//
// Unpickling a file calls what its globals name; listing them shows what Python would call. Nothing
// is built, imported or executed here: the opcodes of all protocols are walked, with just enough of
// a stack to follow names that are put together from strings.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lora {

struct PickleScan {
  bool is_pickle = false;            ///< a pickle, or a zip archive with pickles in it
  std::vector<std::string> tensors;  ///< "module.name" of tensor rebuilding, in order of first use
  std::vector<std::string> foreign;  ///< every other one; "(computed)" where text cannot tell
  std::string incomplete;  ///< why names may be missing from the lists; empty: the walk saw it all
};

/// Scans a file of torch.save (zip archive, sequence of pickles) or any other pickle. Files that
/// cannot be read, and files that are neither, give an empty result with is_pickle false. At most
/// 1,000 names are listed. Memory is bounded by the size of the pickles.
PickleScan scan_pickle(const std::filesystem::path& path);

}  // namespace lora
