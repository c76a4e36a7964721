// Rules about an adapter's folder: LV801 to LV805.
#include <algorithm>

#include "format/zip_reader.h"
#include "format/zip_writer.h"
#include "lora/format/safetensors.h"
#include "lora/format/torch_file.h"
#include "lora/ops/verify.h"
#include "support/sample_adapter.h"
#include "support/testing.h"

using namespace lora;
using namespace lora::testing;

namespace fs = std::filesystem;

namespace {

struct Folder {
  TempDir directory;
  fs::path adapter = directory / "adapter";

  Folder() { write_sample(adapter, sample_config(), sample_tensors()); }

  VerifyReport run() const {
    VerifyOptions options;
    options.adapter = adapter;
    return verify(options);
  }
  Findings found(std::string_view rule) const {
    Findings findings;
    for (const Finding& finding : run().findings)
      if (finding.rule == rule) findings.push_back(finding);
    return findings;
  }
  Finding only(std::string_view rule) const {
    const Findings findings = found(rule);
    REQUIRE(findings.size() == 1);
    INFO(findings[0].message);
    REQUIRE(!findings[0].hint.empty());
    return findings[0];
  }
  void write(const std::string& name, std::string_view content) const {
    write_file(adapter / name, content);
  }
};

bool says(const Finding& finding, std::string_view part) {
  return finding.message.find(part) != std::string::npos;
}

/// A pickle of protocol 0 that would call os.system, as pickletools shows it:
/// GLOBAL 'posix system', MARK, STRING, TUPLE, REDUCE, STOP.
constexpr std::string_view kRunsProgram = "cposix\nsystem\n(S'true'\ntR.";

std::string stack_global(std::string_view module, std::string_view name) {
  const auto text = [](std::string_view word) {
    return std::string("\x8c") + static_cast<char>(word.size()) + std::string(word) + "\x94";
  };
  return "\x80\x04" + text(module) + text(name) + "\x93\x94)R.";
}

void write_pickle_weights(const fs::path& adapter) {
  std::vector<std::pair<std::string, Tensor>> state;
  for (const auto& [key, tensor] : sample_tensors()) state.emplace_back(key, tensor);
  write_file_atomically(adapter / kAdapterPickleName, WriteOptions{true, nullptr},
                        [&](WritableFile& file) { write_torch_file(file, state); });
}

}  // namespace

TEST_CASE("a plain adapter folder has no security finding, and says what was looked at") {
  const Folder folder;
  const VerifyReport report = folder.run();
  for (const Finding& finding : report.findings) REQUIRE(finding.rule.substr(0, 3) != "LV8");
  const auto check = std::find_if(report.checks.begin(), report.checks.end(),
                                  [](const CheckResult& c) { return c.name == "security"; });
  REQUIRE(check != report.checks.end());
  REQUIRE(check->status == CheckStatus::passed);
  REQUIRE(check->detail.starts_with("2 files"));
}

TEST_CASE("LV801: weights that would run a program are an error although reading is refused") {
  const Folder folder;
  fs::remove(folder.adapter / kAdapterWeightsName);
  folder.write(kAdapterPickleName, kRunsProgram);
  const VerifyReport report = folder.run();
  REQUIRE(!report.is_readable);
  const Finding finding = folder.only("LV801");
  REQUIRE(finding.severity == Severity::error);
  REQUIRE(says(finding, "adapter_model.bin would make Python call posix.system"));
  REQUIRE(finding.file.ends_with(kAdapterPickleName));
}

TEST_CASE("LV801: names put together on the stack are found, every one is listed") {
  const Folder folder;
  std::string pickles;
  for (const char* name : {"system", "popen", "execv", "spawnl", "remove", "unlink", "rename",
                           "kill", "fork", "putenv"})
    pickles += stack_global("os", name);
  fs::remove(folder.adapter / kAdapterWeightsName);
  folder.write(kAdapterPickleName, pickles);
  const Finding finding = folder.only("LV801");
  REQUIRE(says(finding, "os.system, os.popen"));
  REQUIRE(says(finding, "os.putenv"));
}

TEST_CASE("LV801: weights of tensors alone are listed as a note") {
  const Folder folder;
  write_pickle_weights(folder.adapter);
  const Finding finding = folder.only("LV801");
  REQUIRE(finding.severity == Severity::note);
  REQUIRE(says(finding, "torch._utils._rebuild_tensor_v2"));
  REQUIRE(says(finding, "collections.OrderedDict"));
}

TEST_CASE("LV801: a trainer's state beside the adapter is a note until it runs code") {
  const Folder folder;
  folder.write("training_args.bin",
               stack_global("transformers.training_args", "TrainingArguments"));
  REQUIRE(folder.only("LV801").severity == Severity::note);
  folder.write("training_args.bin", stack_global("builtins", "eval"));
  REQUIRE(folder.only("LV801").severity == Severity::error);
}

TEST_CASE("LV801: a broken pickle says that the list may be incomplete; other bytes are none") {
  const Folder folder;
  folder.write("extra.pkl",
               "\x80\x02"
               "cos\nsystem\n(\xff");
  const Finding finding = folder.only("LV801");
  REQUIRE(says(finding, "os.system"));
  REQUIRE(says(finding, "may be incomplete"));
  folder.write("extra.pkl", "only text, no pickle at all\n");
  REQUIRE(folder.found("LV801").empty());
}

TEST_CASE("LV802: links that leave the folder, links to nothing, and those that stay") {
  const Folder folder;
  write_file(folder.directory / "outside.json", "{}");
  fs::create_symlink(folder.directory / "outside.json", folder.adapter / "tokenizer.json");
  Finding finding = folder.only("LV802");
  REQUIRE(finding.severity == Severity::warning);
  REQUIRE(says(finding, "tokenizer.json is a link to"));
  fs::remove(folder.adapter / "tokenizer.json");
  fs::create_symlink("nowhere", folder.adapter / "tokenizer.json");
  REQUIRE(says(folder.only("LV802"), "a link to nothing"));
  fs::remove(folder.adapter / "tokenizer.json");
  fs::create_symlink(kAdapterConfigName, folder.adapter / "copy.json");
  REQUIRE(folder.found("LV802").empty());
}

TEST_CASE("LV802: a Hugging Face cache links its snapshots to its blobs, and may not leave them") {
  const Folder folder;
  const fs::path repository = folder.directory / "hub" / "models--org--name";
  const fs::path snapshot = repository / "snapshots" / std::string(40, 'a');
  fs::create_directories(snapshot);
  fs::create_directories(repository / "blobs");
  for (const char* name : {kAdapterConfigName, kAdapterWeightsName}) {
    fs::copy_file(folder.adapter / name, repository / "blobs" / (std::string("blob-") + name));
    fs::create_symlink(fs::path("../../blobs") / (std::string("blob-") + name), snapshot / name);
  }
  const auto links = [&] {
    VerifyOptions options;
    options.adapter = snapshot;
    const VerifyReport report = verify(options);
    REQUIRE(report.is_readable);
    return std::count_if(report.findings.begin(), report.findings.end(),
                         [](const Finding& f) { return f.rule == "LV802"; });
  };
  REQUIRE(links() == 0);
  write_file(repository / "refs" / "secret.json", "{}");
  fs::create_symlink("../../refs/secret.json", snapshot / "tokenizer.json");
  REQUIRE(links() == 1);
}

TEST_CASE("LV802: file names of an index that leave the folder are an error") {
  const Folder folder;
  folder.write("model.safetensors.index.json",
               R"({"weight_map": {"a": "part.safetensors", "b": "../../etc/passwd"}})");
  const Finding finding = folder.only("LV802");
  REQUIRE(finding.severity == Severity::error);
  REQUIRE(says(finding, "b in ../../etc/passwd"));
  REQUIRE(!says(finding, "part.safetensors"));
  folder.write("model.safetensors.index.json", R"({"weight_map": {"a": "x/../p.safetensors"}})");
  REQUIRE(folder.found("LV802").empty());
}

TEST_CASE("LV803: auto_map, trust_remote_code and code files") {
  const Folder folder;
  folder.write("tokenizer_config.json", R"({"auto_map": {"AutoTokenizer": ["x.Y", null]}})");
  REQUIRE(says(folder.only("LV803"), "tokenizer_config.json asks for code"));
  folder.write("tokenizer_config.json", R"({"trust_remote_code": false, "auto_map": null})");
  REQUIRE(folder.found("LV803").empty());
  folder.write("config.json", R"({"text_config": {"trust_remote_code": true}})");
  REQUIRE(says(folder.only("LV803"), "text_config.trust_remote_code"));
  fs::remove(folder.adapter / "config.json");
  folder.write("modeling_mine.py", "print(1)\n");
  REQUIRE(says(folder.only("LV803"), "modeling_mine.py"));
}

TEST_CASE("LV804: templates that reach into Python are errors, wherever they lie") {
  const Folder folder;
  folder.write("chat_template.jinja", "a\n{{ ''.__class__.__mro__[1].__subclasses__() }}");
  const Finding finding = folder.only("LV804");
  REQUIRE(finding.severity == Severity::error);
  REQUIRE(says(finding, "`__class__` in line 2"));
  fs::remove(folder.adapter / "chat_template.jinja");
  folder.write("tokenizer_config.json",
               R"({"chat_template": [{"name": "tool", "template": "{{ x['__globals__'] }}"}]})");
  REQUIRE(says(folder.only("LV804"), "(tool) has `__globals__`"));
  fs::remove(folder.adapter / "tokenizer_config.json");
  const auto fires = [&](std::string_view text, std::string_view part) {
    folder.write("chat_template.jinja", text);
    INFO(text);
    REQUIRE(says(folder.only("LV804"), part));
  };
  fires("{% import 'x.html' as y %}", "the statement `import`");
  fires("{%- include 'x' -%}", "the statement `include`");
  fires("{{ messages | attr('x') }}", "the filter `attr`");
  fires("{{ f.eval('1') }}", "a call of `eval`");
  fires("{{ open('/etc/passwd').read() }}", "a call of `open`");
  fires("{{ os.environ }}", "the module `os`");
  fires("{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}", "an underscore written as");
  fires("Answer.\xE2\x80\xAE{{ x }}", "the hidden character U+202E");
  fires("Ans\xE2\x80\x8Bwer", "the hidden character U+200B");
}

TEST_CASE("LV804: what chat formats do need does not fire") {
  const Folder folder;
  const auto silent = [&](std::string_view text) {
    folder.write("chat_template.jinja", text);
    const Findings findings = folder.found("LV804");
    INFO((findings.empty() ? "" : findings[0].message));
    REQUIRE(findings.empty());
  };
  silent(
      "{%- if tools is defined %}{{- raise_exception('open the door (eval)') }}{% endif -%}"
      "{% for message in messages %}<|im_start|>{{ message['role'] | trim }}\n"
      "{{ message.content | tojson(indent=4) }}<|im_end|>{% endfor %}"
      "{% set ns = namespace(found=false) %}{{ strftime_now('%d %b %Y') }}"
      "{% macro from_user(m) %}{{ m.get('from') }}{% endmacro %}");
  silent("{# import os; __class__ #}You may import os and open(files) in text, __init__ too.");
  silent(
      "<\xEF\xBD\x9C"
      "User\xEF\xBD\x9C>\xE2\x96\x81 \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB");
}

TEST_CASE("LV804: a web address is a note") {
  const Folder folder;
  folder.write("chat_template.jinja", "See https://example.org/x for {{ messages[0].content }}");
  const Finding finding = folder.only("LV804");
  REQUIRE(finding.severity == Severity::note);
  REQUIRE(says(finding, "https://example.org/x"));
}

TEST_CASE("LV805: a header with far more than its tensors need") {
  const Folder folder;
  const Metadata much{{"format", "pt"}, {"notes", std::string(200'000, 'x')}};
  write_safetensors(folder.adapter / kAdapterWeightsName, sample_tensors(), &much,
                    WriteOptions{true, nullptr});
  const Finding finding = folder.only("LV805");
  REQUIRE(finding.severity == Severity::warning);
  REQUIRE(says(finding, "200"));
  const Metadata some{{"format", "pt"}, {"notes", std::string(20'000, 'x')}};
  write_safetensors(folder.adapter / kAdapterWeightsName, sample_tensors(), &some,
                    WriteOptions{true, nullptr});
  REQUIRE(folder.found("LV805").empty());
}

TEST_CASE("LV805: a torch archive with much more in it than its tensors") {
  const Folder folder;
  fs::remove(folder.adapter / kAdapterWeightsName);
  write_pickle_weights(folder.adapter);
  REQUIRE(folder.found("LV805").empty());
  const fs::path weights = folder.adapter / kAdapterPickleName;
  const std::string honest = read_file(weights);
  const auto with_extra = [&](std::size_t bytes) {
    AllocationBudget budget(honest.size());
    const ZipReader zip(std::as_bytes(std::span(honest)), budget);
    const std::string first(zip.entries().front().name);
    const std::string extra(bytes, 'x');
    write_file_atomically(weights, WriteOptions{true, nullptr}, [&](WritableFile& file) {
      ZipWriter writer(file, 64);
      for (const ZipEntry& entry : zip.entries())
        writer.add(entry.name,
                   {reinterpret_cast<const char*>(entry.payload.data()), entry.payload.size()});
      writer.add(first.substr(0, first.find('/')) + "/extra", extra);
      writer.finish();
    });
  };
  with_extra(2'000'000);
  const Finding finding = folder.only("LV805");
  REQUIRE(says(finding, "its 4 tensors take 832"));
  REQUIRE(says(finding, "adapter_model.bin has 200"));
  with_extra(1000);
  REQUIRE(folder.found("LV805").empty());
}
