// Sums of differences by leaf name and by layer, and heat maps over both.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lora/ops/diff.h"

namespace lora {

/// One module's share of a group.
struct GroupMember {
  ModulePlace place;
  double norm_a = 0, norm_b = 0, difference = 0, cosine = 0, largest_angle = 0;
  bool is_changed = false;
};

std::vector<GroupDifference> group_by_leaf(const std::vector<GroupMember>& members);
/// Layers ascending, modules outside layers last under the name "".
std::vector<GroupDifference> group_by_layer(const std::vector<GroupMember>& members);
/// All members as one group; `name` is empty.
GroupDifference total_of(const std::vector<GroupMember>& members);

/// `values[i]` belongs to `places[i]`; the last one wins where several share a cell.
HeatMap heat_map(const std::vector<ModulePlace>& places, const std::vector<double>& values);

/// difference / norm; 0 when both are zero, infinite when only the norm is.
double relative_to(double difference, double norm);

}  // namespace lora
