// How strongly each site is applied, in terms of a configuration: the inverse of scaling_of.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "lora/adapter/adapter.h"

namespace lora {

/// The path that rank_pattern and alpha_pattern see for a site: the attention module for its output
/// projection, the parameter for a bare parameter, the path in the base for everything inside
/// wrapped modules. Two sites with one path have one rank and one alpha.
std::string pattern_path(const LoraModule& module);

struct SiteStrength {
  std::int64_t rank = 0;
  double scaling = 0;
  friend bool operator==(const SiteStrength&, const SiteStrength&) = default;
};

/// The lora_alpha that gives this scaling at this rank, an integer where one does. Rarely no double
/// gives it exactly: then the nearest, which gives the same float.
double alpha_for(double scaling, std::int64_t rank, bool use_rslora);

/// Makes the configuration give these ranks and scalings, by pattern_path. What does so already is
/// left alone; otherwise r and lora_alpha take the most frequent values (the smallest of equals)
/// and every other site a key of its own in the patterns, which matches nothing else.
void set_strengths(AdapterConfig& config, const std::map<std::string, SiteStrength>& strengths);

/// Twice every rank at the same scalings, and a plain initialisation: what PEFT writes for an
/// adapter whose first factors are subtracted from it.
void double_ranks(AdapterConfig& config);

/// A key of rank_pattern or alpha_pattern that matches this module and no other: "^" and the path
/// with the characters escaped that mean something in a regular expression, except the dot, as PEFT
/// writes them.
std::string whole_path_pattern(const std::string& module_path);

}  // namespace lora
