// Sites on bare parameters (target_parameters), whose keys do not name the parameter.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "lora/adapter/config.h"

namespace lora {

/// Entries of target_parameters, in the order of the file; empty when there are none.
std::vector<std::string> target_parameters(const AdapterConfig& config);

/// Names of the parameters that the entries select in the module `module_path`, each once, in the
/// order in which a class is likely to register them: the projection back to the residual stream
/// (down_proj, w2) last, the others as listed.
std::vector<std::string> parameters_of(const std::string& module_path,
                                       const std::vector<std::string>& entries);

struct ParameterName {
  std::string base_name;
  bool is_certain = false;  ///< no other parameter of the configuration could be meant
};

/// Which of these sites adapt a bare parameter, by site path. The innermost of nested sites is the
/// parameter registered first. Sites that target_modules selects are none (PEFT refuses both on one
/// module).
std::map<std::string, ParameterName> name_parameter_sites(const AdapterConfig& config,
                                                          const std::vector<std::string>& paths);

/// Whether a stack of experts is read as [E, in, out] when only the version can tell: before 0.19
/// (and without peft_version) always, later only for classes that say so.
bool is_in_out_by_version(const AdapterConfig& config);

}  // namespace lora
