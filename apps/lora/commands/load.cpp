#include <algorithm>
#include <chrono>
#include <ctime>

#include "cli/exit_codes.h"
#include "cli/sources.h"
#include "cli/units.h"
#include "commands/commands.h"
#include "commands/module_tree.h"
#include "lora/base/error.h"
#include "lora/checkpoint/tokenizer_files.h"
#include "lora/format/safetensors.h"
#include "lora/ops/adapter_set.h"
#include "lora/ops/fit.h"
#include "lora/ops/trainable.h"
#include "lora/text/chat_template.h"
#include "lora/text/tokenizer.h"

namespace lora::cli {
namespace {

struct Counts {
  std::int64_t frozen = 0, trainable = 0;
};

class Load final : public Command {
 public:
  void add_options(OptionSet& options) override {
    options.group("Arguments");
    options.rest("ADAPTER", adapter_paths_,
                 "adapter or run directories; several add up, ADAPTER@WEIGHT weighs one");
    options.text("--base", base_, "BASE", kBaseHelp);
    options.text("--adapter-config", adapter_config_, "FILE", "for a weights file given alone");
    options.flag("--trainable", trainable_,
                 "make the adapter's parameters trainable (default: frozen)");
    options.flag("--print-modules", print_modules_,
                 "print the module tree also with --input or --prompt");
    options.flag("--any-base", any_base_, "load although another base is recorded");
    options.choice("--compute", compute_, {"f32", "bf16"},
                   "dtype to compute in (default: the base's)");
    options.choice("--base-dtype", base_dtype_, {"native", "int8", "nf4"},
                   "how the base's layers are kept: nf4 takes 4.5 bits a value, int8 8.25");
    options.text("--device", device_, "DEVICE",
                 "device to compute on (default: cpu, or LORA_DEVICE)");
    options.group("Outputs");
    options.text("--input", input_, "FILE",
                 "safetensors with input_ids (I64 [batch, seq], optional attention_mask) or x (F32 "
                 "[batch, features])");
    options.text("--output", output_, "FILE", "safetensors to write: logits or output (F32)");
    options.flag("-f,--force", force_, "replace an existing output");
    options.group("Generation");
    options.text("--prompt", prompt_, "TEXT", "continue this text");
    options.flag("--chat", chat_,
                 "treat the prompt as a user's message (the base's chat template)");
    options.integer("--max-new-tokens", generate_.max_new_tokens, 1,
                    "at most this many new tokens");
    options.number("--temperature", generate_.temperature, 0, 100, "0: always the best token");
    options.seed("--seed", generate_.seed, "seed of sampling");
    options.flag("--ignore-eos", ignore_eos_, "go on after the end token");
    options.group("A bare state dict as base");
    add_base_options(options, base_options_);
  }

  Outcome run(Context& context) override {
    check_flags();
    open_adapters(context);
    base_options_.config_required = true;
    const Checkpoint base = open_base_for(base_, adapters_.front().config, base_options_, context);
    fit_adapters(base);
    require_no_conflict(active_);
    if (!any_base_) check_identity(base, context);
    if (trainable_)
      for (const Adapter& adapter : adapters_)
        trained_.push_back(trainable_parameters(adapter, base));
    const Counts counts = count(base);
    const bool computes = input_.has_value() || prompt_.has_value();
    const std::vector<std::string> tree = module_tree(list_modules(base), active_);
    if (!computes || print_modules_)
      for (const std::string& line : tree) context.console.line(printable(line));
    if (!computes || print_modules_) print_trained(context.console);
    const std::string summary = summary_of(counts);
    if (prompt_) {
      context.console.note(summary);
    } else {
      context.console.line(summary);
    }
    Outcome outcome{kDone, result_of(counts, tree), {}};
    if (computes) compute(base, context, outcome.result);
    return outcome;
  }

 private:
  void open_adapters(Context& context) {
    for (const std::string& argument : adapter_paths_) {
      const WeightedPath source = split_weight(argument);
      Adapter& adapter = adapters_.emplace_back(open_adapter(resolve_adapter(source.path, context),
                                                             adapter_config_from(adapter_config_)));
      weights_.push_back(source.weight);
      if (source.weight == 1) continue;
      context.console.note(source.path + " is weighed with " + number_text(source.weight, 17));
      note_taken_whole(source.path, adapter, source.weight, context);
    }
    for (const Adapter& adapter : adapters_) active_.push_back(&adapter);
  }

  // A weight multiplies the scaling, which only the base settles for bare parameters.
  void fit_adapters(const Checkpoint& base) {
    for (std::size_t i = 0; i < adapters_.size(); ++i) {
      require_fit(adapters_[i], base);
      if (adapters_.size() > 1) drop_base_copies(adapters_[i], base);
      apply_weight(adapters_[i], weights_[i]);
    }
  }

  void print_trained(Console& console) const {
    for (std::size_t i = 0; i < trained_.size(); ++i) {
      Table table({"trainable", "shape", "dtype", "values"}, {false, false, false, true});
      for (const TrainableParameter& parameter : trained_[i])
        table.row({printable(parameter.name), shape_to_string(parameter.shape),
                   std::string(to_string(parameter.dtype)),
                   count_text(static_cast<std::uint64_t>(numel(parameter)))});
      if (trained_.size() > 1) console.line(adapters_[i].path.string());
      for (const std::string& line : table.lines()) console.line(line);
    }
  }

  static std::int64_t numel(const TrainableParameter& parameter) {
    std::int64_t count = 1;
    for (const std::int64_t extent : parameter.shape) count *= extent;
    return count;
  }

  void check_flags() const {
    if (input_.has_value() != output_.has_value())
      throw Error(ErrorKind::usage, std::string("--input and --output belong together, missing ") +
                                        (input_ ? "--output" : "--input"));
    if (input_ && prompt_) throw Error(ErrorKind::usage, "--input and --prompt exclude each other");
    if (chat_ && !prompt_) throw Error(ErrorKind::usage, "--chat needs --prompt");
    if (output_) require_absent(*output_, force_);
  }

  void check_identity(const Checkpoint& base, Context& context) const {
    std::optional<BaseLock> lock;
    for (const Adapter& adapter : adapters_) {
      const auto manifest = read_manifest(adapter.directory());
      if (!manifest || !manifest->base_root) continue;
      if (!lock) lock = lock_of(base, context.threads(), context.sinks);
      require_recorded_base(*manifest, *lock, adapter.path.string(), base.path.string());
    }
  }

  Counts count(const Checkpoint& base) const {
    Counts counts;
    for (const auto& [name, tensor] : base.tensors) counts.frozen += tensor.numel();
    for (const Adapter* adapter : active_)
      for (const auto& [key, tensor] : adapter->tensors) counts.frozen += tensor.numel();
    for (const auto& parameters : trained_)
      for (const TrainableParameter& parameter : parameters) {
        counts.trainable += numel(parameter);
        counts.frozen -= numel(parameter);
      }
    return counts;
  }

  std::string summary_of(const Counts& counts) const {
    const std::int64_t all = counts.frozen + counts.trainable;
    const double share =
        all ? 100.0 * static_cast<double>(counts.trainable) / static_cast<double>(all) : 0;
    return "parameters: " + count_text(static_cast<std::uint64_t>(counts.frozen)) + " frozen, " +
           count_text(static_cast<std::uint64_t>(counts.trainable)) + " trainable (" +
           number_text(share, 3) + " %)" +
           (trainable_ ? "" : "; adapters load frozen, --trainable changes that");
  }

  JsonObject result_of(const Counts& counts, const std::vector<std::string>& tree) const {
    JsonArray adapters, lines;
    for (std::size_t i = 0; i < adapters_.size(); ++i) {
      const Adapter& adapter = adapters_[i];
      JsonArray names;
      for (const LoraModule& module : adapter.modules)
        names.push_back(JsonObject{{"module", printable(module.module_path)},
                                   {"rank", module.rank},
                                   {"alpha", module.alpha},
                                   {"scaling", module.scaling}});
      adapters.push_back(
          JsonObject{{"path", adapter.path.string()},
                     {"weight", weights_[i]},
                     {"tensors", std::int64_t(adapter.tensors.size())},
                     {"modules", std::move(names)},
                     {"saved_parameters", std::int64_t(adapter.replacements.size())}});
    }
    for (const std::string& line : tree) lines.emplace_back(printable(line));
    JsonArray trained;
    for (std::size_t i = 0; i < trained_.size(); ++i)
      for (const TrainableParameter& parameter : trained_[i])
        trained.push_back(
            JsonObject{{"adapter", std::int64_t(i)},
                       {"name", printable(parameter.name)},
                       {"shape", JsonArray(parameter.shape.begin(), parameter.shape.end())},
                       {"dtype", to_string(parameter.dtype)},
                       {"numel", numel(parameter)},
                       {"is_in_file", parameter.is_in_file}});
    return {{"adapters", std::move(adapters)},
            {"trainable_list", std::move(trained)},
            {"frozen_parameters", counts.frozen},
            {"trainable_parameters", counts.trainable},
            {"trainable", trainable_},
            {"tree", std::move(lines)}};
  }

  void compute(const Checkpoint& base, Context& context, JsonObject& result) {
    ModelOptions options;
    options.base = &base;
    options.adapters = active_;
    options.trainable = trainable_;
    options.device = device_.value_or(context.default_device());
    if (compute_) options.compute = *compute_ == "bf16" ? Compute::bf16 : Compute::f32;
    options.base_dtype = base_dtype_named(base_dtype_);
    // Everything cheap is checked before LibTorch starts.
    std::optional<TensorMap> inputs;
    if (input_) inputs = read_safetensors(*input_).tensors;
    std::optional<Tokenizer> tokenizer;
    std::vector<std::int64_t> prompt;
    if (prompt_) {
      tokenizer = Tokenizer::from_directory(tokenizer_folder(base));
      prompt = encode_prompt(base, *tokenizer);
    }
    const auto model = context.engine().load_model(options);
    if (inputs) {
      const TensorMap outputs = model->forward(*inputs);
      write_safetensors(*output_, outputs, nullptr, WriteOptions{force_, nullptr});
      JsonObject written;
      for (const auto& [name, tensor] : outputs) {
        context.console.line("wrote " + *output_ + ": " + name + " " +
                             shape_to_string(tensor.shape));
        written[name] = shape_to_string(tensor.shape);
      }
      result["output"] = *output_;
      result["outputs"] = std::move(written);
    } else {
      generate(*model, base, *tokenizer, prompt, context, result);
    }
  }

  // An adapter with tokens of its own has the tokenizer that knows them beside it.
  std::filesystem::path tokenizer_folder(const Checkpoint& base) const {
    for (const Adapter* adapter : active_)
      if (!adapter->tokens.empty() &&
          std::filesystem::exists(adapter->directory() / kTokenizerName))
        return adapter->directory();
    return base.directory;
  }

  std::vector<std::int64_t> encode_prompt(const Checkpoint& base,
                                          const Tokenizer& tokenizer) const {
    if (!chat_) {
      auto ids = tokenizer.encode(*prompt_, true);
      if (ids.empty()) throw Error(ErrorKind::usage, "--prompt holds no token");
      return ids;
    }
    const auto chat_template = ChatTemplate::from_directory(base.directory);
    if (!chat_template)
      throw Error(ErrorKind::incompatible,
                  "base " + base.path.string() + " has no chat template, --chat needs one");
    ChatOptions chat;
    chat.add_generation_prompt = true;
    chat.bos_token = tokenizer.bos_token();
    chat.eos_token = tokenizer.eos_token();
    chat.pad_token = tokenizer.pad_token();
    const std::time_t seconds = std::time(nullptr);
    std::tm now{};
    if (::localtime_r(&seconds, &now) != nullptr) chat.now = now;
    const JsonArray messages{JsonObject{{"role", "user"}, {"content", *prompt_}}};
    return tokenizer.encode(chat_template->render(messages, chat).text, false);
  }

  void generate(EngineModel& model, const Checkpoint& base, const Tokenizer& tokenizer,
                const std::vector<std::int64_t>& prompt, Context& context, JsonObject& result) {
    if (!ignore_eos_) {
      if (const auto tokens = base.config ? base.config->token_model() : std::nullopt)
        generate_.stop_tokens = tokens->eos_token_ids;
      if (const auto eos = tokenizer.eos_id()) generate_.stop_tokens.push_back(*eos);
    }
    generate_.cancel = context.streams.cancel;
    TokenStream stream(tokenizer);
    std::string text;
    generate_.on_token = [&](std::int64_t token) {
      const std::string piece = stream.push(token);
      text += piece;
      context.console.raw(piece);
      return true;
    };
    const auto start = std::chrono::steady_clock::now();
    const std::vector<std::int64_t> tokens = model.generate(prompt, generate_);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const std::string rest = stream.finish();
    text += rest;
    context.console.raw(rest + "\n");
    context.sinks.throw_if_cancelled();
    JsonArray ids, prompt_ids;
    for (const std::int64_t token : tokens) ids.emplace_back(token);
    for (const std::int64_t token : prompt) prompt_ids.emplace_back(token);
    result["prompt_ids"] = std::move(prompt_ids);
    result["token_ids"] = std::move(ids);
    result["text"] = text;
    result["tok_s"] = seconds > 0 ? static_cast<double>(tokens.size()) / seconds : 0.0;
  }

  std::vector<std::string> adapter_paths_;
  std::optional<std::string> base_, adapter_config_, compute_, device_, input_, output_, prompt_;
  std::string base_dtype_ = "native";
  bool trainable_ = false, print_modules_ = false, any_base_ = false, force_ = false;
  bool chat_ = false, ignore_eos_ = false;
  GenerateOptions generate_;
  OpenCheckpointOptions base_options_;
  std::vector<Adapter> adapters_;
  std::vector<double> weights_;
  std::vector<const Adapter*> active_;
  std::vector<std::vector<TrainableParameter>> trained_;  ///< by adapter, with --trainable
};

}  // namespace

Verb load_verb() {
  return {
      "load",
      "Core",
      "reload base + adapter, with every key accounted for",
      "Opens the adapter on its base and refuses anything that does not fit: missing, unexpected "
      "and "
      "misshaped keys are all listed (exit code 4), and so is a base that is not the recorded one. "
      "Prints the module tree with its LoRA layers and the counts of frozen and trainable "
      "parameters. Adapters load frozen unless --trainable is given, which "
      "lists every parameter that would train.\n\nSeveral adapters are active at once and their "
      "updates add up, each times its WEIGHT; two that contradict each other are refused.\n\n"
      "With --input and --output "
      "it "
      "computes outputs, with --prompt it generates text.",
      "lora load adapter --base base\n"
      "lora load style@0.7 facts@0.3 --base base --prompt \"Once upon a time\"\n"
      "lora load adapter --base base --input x.safetensors --output y.safetensors\n"
      "lora load adapter --base base --prompt \"Once upon a time\" --max-new-tokens 40",
      []() -> std::unique_ptr<Command> { return std::make_unique<Load>(); }};
}

}  // namespace lora::cli
