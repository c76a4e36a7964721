#include "lora/checkpoint/train_run.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <system_error>
#include <utility>

#include "lora/base/error.h"

namespace lora {
namespace {

namespace stdfs = std::filesystem;

constexpr std::string_view kStepPrefix = "step-";

// Typed access to one object of run.json; every failure names the file and the member.
class Members {
 public:
  Members(const Json& object, std::string file, std::string where = {})
      : object_(object), file_(std::move(file)), where_(std::move(where)) {}

  const Json& at(const char* key) const {
    const Json* found = object_.find(key);
    if (found == nullptr) throw wrong(key, "is missing");
    return *found;
  }
  Members inside(const char* key) const {
    if (!at(key).is_object()) throw mistyped(key, "an object");
    return {at(key), file_, where_ + key + "."};
  }
  std::string text(const char* key) const {
    const std::string* value = at(key).as_string();
    if (value == nullptr) throw mistyped(key, "a string");
    return *value;
  }
  std::int64_t count(const char* key) const {
    const auto value = at(key).as_int();
    if (!value || *value < 0) throw mistyped(key, "a whole number");
    return *value;
  }
  Digest digest(const char* key) const {
    const auto value = Digest::from_hex(text(key));
    if (!value) throw mistyped(key, "64 hexadecimal digits");
    return *value;
  }
  RecordedFile file(const Json& entry, const char* key) const {
    if (!entry.is_object()) throw mistyped(key, "objects with path and sha256");
    const Members members(entry, file_, where_ + key + ".");
    return {members.text("path"), members.digest("sha256")};
  }
  std::vector<RecordedFile> files(const char* key) const {
    const JsonArray* entries = at(key).as_array();
    if (entries == nullptr) throw mistyped(key, "an array");
    std::vector<RecordedFile> result;
    for (const Json& entry : *entries) result.push_back(file(entry, key));
    return result;
  }

 private:
  Error wrong(const char* key, const std::string& what) const {
    return Error(ErrorKind::malformed,
                 "cannot read run record " + file_ + ": " + where_ + key + " " + what)
        .in_file(file_);
  }
  Error mistyped(const char* key, const std::string& expected) const {
    return wrong(key, "is " + std::string(at(key).type_name()) + ", expected " + expected);
  }

  const Json& object_;
  std::string file_;
  std::string where_;
};

Json json_of(const RecordedFile& file) {
  return JsonObject{{"path", file.path.string()}, {"sha256", file.digest.hex()}};
}

Json json_of(const std::vector<RecordedFile>& files) {
  JsonArray array;
  for (const RecordedFile& file : files) array.push_back(json_of(file));
  return array;
}

}  // namespace

bool is_run_directory(const stdfs::path& path) {
  std::error_code ignored;
  return stdfs::is_regular_file(path / kRunRecordName, ignored);
}

TrainRun read_train_run(const stdfs::path& run_dir) {
  const std::string file = (run_dir / kRunRecordName).string();
  const Json document = read_json_file(file);
  const Members members(document, file);
  if (members.text("schema") != kRunSchema)
    throw Error(ErrorKind::unsupported, "cannot read run record " + file + ": schema is '" +
                                            members.text("schema") + "', expected " + kRunSchema)
        .in_file(file);
  TrainRun run;
  run.path = run_dir;
  run.tool_version = members.inside("tool").text("version");
  run.base_source = members.inside("base").text("source");
  run.base_root = members.inside("base").digest("root");
  run.data = members.files("data");
  run.eval_data = members.files("eval_data");
  if (const Json& initial = members.at("initial_adapter"); !initial.is_null())
    run.initial_adapter = members.file(initial, "initial_adapter");
  run.total_steps = members.count("total_steps");
  run.threads = static_cast<int>(std::min<std::int64_t>(members.count("threads"), 1 << 20));
  members.inside("config");
  run.config = *members.at("config").as_object();
  run.adapter_config = members.at("adapter_config");
  return run;
}

Json to_json(const TrainRun& run) {
  return JsonObject{
      {"schema", kRunSchema},
      {"tool", JsonObject{{"name", "lora"}, {"version", run.tool_version}}},
      {"base", JsonObject{{"source", run.base_source}, {"root", run.base_root.hex()}}},
      {"data", json_of(run.data)},
      {"eval_data", json_of(run.eval_data)},
      {"initial_adapter", run.initial_adapter ? json_of(*run.initial_adapter) : Json(nullptr)},
      {"total_steps", run.total_steps},
      {"threads", run.threads},
      {"config", run.config},
      {"adapter_config", run.adapter_config}};
}

std::vector<std::int64_t> checkpoint_steps(const stdfs::path& run_dir) {
  std::vector<std::int64_t> steps;
  std::error_code absent;
  for (const auto& entry : stdfs::directory_iterator(run_dir / "checkpoints", absent)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kStepPrefix)) continue;
    std::int64_t step = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kStepPrefix.size(), end, step);
    if (parsed.ec == std::errc() && parsed.ptr == end && step >= 0) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

stdfs::path checkpoint_path(const stdfs::path& run_dir, std::int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "step-%06lld", static_cast<long long>(step));
  return run_dir / "checkpoints" / name;
}

stdfs::path adapter_of_run(const stdfs::path& run_dir) {
  std::error_code ignored;
  if (stdfs::is_directory(run_dir / "adapter", ignored)) return run_dir / "adapter";
  const std::vector<std::int64_t> steps = checkpoint_steps(run_dir);
  if (!steps.empty()) return checkpoint_path(run_dir, steps.back());
  throw Error(ErrorKind::not_found, "run directory " + run_dir.string() +
                                        " holds neither an adapter nor a checkpoint yet")
      .in_file(run_dir.string());
}

}  // namespace lora
