// One function a verb; each lives in the file of its name.
#pragma once

#include "cli/verb.h"

namespace lora::cli {

Verb init_base_verb();
Verb train_verb();
Verb save_verb();
Verb load_verb();
Verb verify_verb();
Verb diff_verb();
Verb inspect_verb();
Verb repair_verb();
Verb extract_verb();
Verb resize_verb();
Verb combine_verb();
Verb scale_verb();
Verb convert_verb();
Verb merge_verb();
Verb unmerge_verb();

}  // namespace lora::cli
