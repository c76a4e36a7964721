#include "commands/derived_flags.h"

#include "cli/sources.h"
#include "cli/units.h"

namespace lora::cli {

void DerivedFlags::add_to(OptionSet& options, const std::string& dtype_help) {
  options.text("-o,--output", output_, "DIR", "adapter directory to write").is_required = true;
  options.flag("-f,--force", force_, "replace an existing output");
  options.flag("-n,--dry-run", dry_run_, "compute and check everything, write nothing");
  options.choice("--dtype", dtype_, {"f32", "bf16", "f16"}, dtype_help);
}

DerivedOptions DerivedFlags::options(const Context& context) const {
  DerivedOptions options;
  options.output = output_;
  if (dtype_) options.dtype = float_dtype(*dtype_);
  options.dry_run = dry_run_;
  options.write.force = force_;
  options.threads = context.threads();
  return options;
}

void add_result(const DerivedReport& report, JsonObject& result) {
  JsonArray notes;
  for (const std::string& note : report.notes) notes.emplace_back(printable(note));
  result["output"] = report.output.string();
  result["written"] = report.is_written;
  result["digest"] = report.digest.hex();
  result["module_count"] = std::int64_t(report.adapter.modules.size());
  result["bytes"] = report.bytes;
  result["notes"] = std::move(notes);
}

void print_result(const DerivedReport& report, Console& console) {
  for (const std::string& note : report.notes) console.note(printable(note));
  console.line(std::string(report.is_written ? "wrote " : "would write ") + report.output.string() +
               ": " + plural(report.adapter.modules.size(), "LoRA module") + ", " +
               bytes_text(report.bytes));
}

}  // namespace lora::cli
