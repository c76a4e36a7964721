// lora_merge.json: what is accepted is written in a form that says the same, and has a history.
#include "fuzz.h"
#include "ops/merge/record.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lora;
  static const fuzz::InputFolder folder;
  folder.put(merging::kRecordName, fuzz::text_of(data, size));
  Json document;
  if (!fuzz::accepts([&] { document = read_json_file(folder.path() / merging::kRecordName); }))
    return 0;
  fuzz::accepts([&] { merging::history_of(document); });
  std::optional<merging::Record> record;
  if (!fuzz::accepts([&] { record = merging::read_record(folder.path()); }) || !record) return 0;
  const std::string text = dump_json(merging::to_json(*record));
  folder.put(merging::kRecordName, text);
  const auto again = merging::read_record(folder.path());
  fuzz::require(again.has_value(), "a record survives writing", text);
  fuzz::require(dump_json(merging::to_json(*again)) == text, "a record keeps what it says", text);
  fuzz::accepts([&] { merging::history_of(merging::to_json(*again)); });
  return 0;
}
