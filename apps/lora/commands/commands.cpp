#include "commands/commands.h"

#include <algorithm>

#include "cli/verb.h"

namespace lora::cli {

const std::vector<Verb>& all_verbs() {
  static const std::vector<Verb> verbs{
      init_base_verb(), train_verb(),   save_verb(),    load_verb(),   verify_verb(),
      diff_verb(),      extract_verb(), inspect_verb(), repair_verb(), resize_verb(),
      combine_verb(),   scale_verb(),   convert_verb(), merge_verb(),  unmerge_verb()};
  return verbs;
}

const Verb* find_verb(std::string_view name) {
  const auto& verbs = all_verbs();
  const auto found =
      std::find_if(verbs.begin(), verbs.end(), [&](const Verb& verb) { return verb.name == name; });
  return found == verbs.end() ? nullptr : &*found;
}

}  // namespace lora::cli
