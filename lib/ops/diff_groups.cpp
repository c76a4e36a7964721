#include "ops/diff_groups.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <set>

namespace lora {
namespace {

std::string name_of(const std::optional<std::int64_t>& layer) {
  return layer ? std::to_string(*layer) : "";
}

struct Sums {
  GroupDifference group;
  double squares_a = 0, squares_b = 0, squares = 0, inner = 0;

  void add(const GroupMember& member) {
    group.modules += 1;
    group.changed += member.is_changed ? 1 : 0;
    group.largest_angle = std::isnan(member.largest_angle)
                              ? member.largest_angle
                              : std::max(group.largest_angle, member.largest_angle);
    squares_a += member.norm_a * member.norm_a;
    squares_b += member.norm_b * member.norm_b;
    squares += member.difference * member.difference;
    inner += member.cosine * member.norm_a * member.norm_b;
  }

  GroupDifference finish() {
    group.norm_a = std::sqrt(squares_a);
    group.norm_b = std::sqrt(squares_b);
    group.difference = std::sqrt(squares);
    group.relative = relative_to(group.difference, group.norm_a);
    if (group.norm_a > 0 && group.norm_b > 0) {
      group.cosine = std::clamp(inner / (group.norm_a * group.norm_b), -1.0, 1.0);
    } else if (std::isnan(group.norm_a) || std::isnan(group.norm_b)) {
      group.cosine = std::numeric_limits<double>::quiet_NaN();
    } else {
      group.cosine = group.norm_a == group.norm_b ? 1 : 0;
    }
    return std::move(group);
  }
};

}  // namespace

ModulePlace place_of(const std::string& module_path) {
  ModulePlace place;
  place.leaf = module_path.substr(module_path.rfind('.') + 1);
  for (std::size_t start = 0; start < module_path.size();) {
    const std::size_t end = std::min(module_path.find('.', start), module_path.size());
    std::int64_t number = 0;
    const char* last = module_path.data() + end;
    const auto [stop, code] = std::from_chars(module_path.data() + start, last, number);
    if (code == std::errc() && stop == last && number >= 0) {
      place.layer = number;
      break;
    }
    start = end + 1;
  }
  return place;
}

double relative_to(double difference, double norm) {
  if (norm > 0 || std::isnan(norm)) return difference / norm;
  if (std::isnan(difference)) return difference;
  return difference > 0 ? std::numeric_limits<double>::infinity() : 0;
}

std::vector<GroupDifference> group_by_leaf(const std::vector<GroupMember>& members) {
  std::vector<Sums> groups;
  std::map<std::string, std::size_t> index;
  for (const GroupMember& member : members) {
    const auto [place, is_new] = index.emplace(member.place.leaf, groups.size());
    if (is_new) groups.emplace_back().group.name = member.place.leaf;
    groups[place->second].add(member);
  }
  std::vector<GroupDifference> result;
  for (Sums& sums : groups) result.push_back(sums.finish());
  return result;
}

std::vector<GroupDifference> group_by_layer(const std::vector<GroupMember>& members) {
  constexpr std::int64_t kOutside = std::numeric_limits<std::int64_t>::max();
  std::map<std::int64_t, Sums> groups;
  for (const GroupMember& member : members) {
    Sums& sums = groups[member.place.layer.value_or(kOutside)];
    sums.group.name = name_of(member.place.layer);
    sums.add(member);
  }
  std::vector<GroupDifference> result;
  for (auto& [layer, sums] : groups) result.push_back(sums.finish());
  return result;
}

GroupDifference total_of(const std::vector<GroupMember>& members) {
  Sums sums;
  for (const GroupMember& member : members) sums.add(member);
  return sums.finish();
}

HeatMap heat_map(const std::vector<ModulePlace>& places, const std::vector<double>& values) {
  HeatMap map;
  std::set<std::int64_t> layers;
  bool has_outside = false;
  for (const ModulePlace& place : places) {
    if (std::find(map.columns.begin(), map.columns.end(), place.leaf) == map.columns.end())
      map.columns.push_back(place.leaf);
    if (place.layer)
      layers.insert(*place.layer);
    else
      has_outside = true;
  }
  std::map<std::string, std::size_t> row_of;
  for (const std::int64_t layer : layers) map.rows.push_back(std::to_string(layer));
  if (has_outside) map.rows.emplace_back();
  for (std::size_t i = 0; i < map.rows.size(); ++i) row_of[map.rows[i]] = i;
  map.values.assign(map.rows.size() * map.columns.size(), std::numeric_limits<double>::quiet_NaN());
  for (std::size_t i = 0; i < places.size(); ++i) {
    const auto column =
        std::find(map.columns.begin(), map.columns.end(), places[i].leaf) - map.columns.begin();
    map.values[row_of.at(name_of(places[i].layer)) * map.columns.size() +
               static_cast<std::size_t>(column)] = values[i];
  }
  return map;
}

}  // namespace lora
