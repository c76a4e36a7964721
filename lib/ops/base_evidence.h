// What speaks for or against a base when no digest can tell: names, revision, architecture,
// tokenizer and chat template. Evidence makes an adapter plausible on a base and never proves it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lora/adapter/adapter.h"
#include "lora/adapter/manifest.h"
#include "lora/adapter/targets.h"
#include "lora/checkpoint/checkpoint.h"

namespace lora {

/// A comparison that came out against the base.
struct BaseDifference {
  enum class Subject { name, revision, architecture, tokenizer, chat_template };
  Subject subject = Subject::name;
  std::string message;      ///< one line: what was recorded, what the base says
  bool is_certain = false;  ///< cannot be right, as far as files can tell
};

struct BaseEvidence {
  std::vector<std::string> agreeing;  ///< what was compared and is equal: "name", "tokenizer", ...
  std::vector<BaseDifference> differing;
};

/// A base's name on the hub and the commit of the snapshot, from its place in the local cache
/// (CACHE/models--ORG--NAME/snapshots/COMMIT); empty for any other folder.
struct BaseName {
  std::string id;
  std::string revision;
};
BaseName name_of_base(const Checkpoint& base);

/// Compares everything that both sides state; what one side does not state is no evidence. Names
/// are compared whole, never by a part. Files that cannot be read are no evidence either.
BaseEvidence compare_with_base(const Adapter& adapter, const std::optional<Manifest>& manifest,
                               const Checkpoint& base,
                               const std::optional<ResolvedTargets>& targets);

}  // namespace lora
