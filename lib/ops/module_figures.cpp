#include "ops/module_figures.h"

#include <algorithm>
#include <atomic>
#include <deque>

#include "lora/base/parallel.h"
#include "lora/checkpoint/checkpoint.h"
#include "ops/numbers/product.h"

namespace lora {
namespace {

using namespace numbers;

// Vectors of a factor in one piece of work: about two million values, whole panels.
constexpr std::int64_t kPieceValues = std::int64_t{1} << 21;
constexpr std::int64_t kPanelMultiple = 256;

struct ModuleJob;

// One tensor in pieces. The thread that finishes the last piece joins them.
struct TensorJob {
  TensorJob(const Tensor& t, const std::vector<std::shared_ptr<const MappedFile>>& files)
      : tensor(t), matrix(t), mappings(files) {}

  const Tensor& tensor;
  MatrixView matrix;
  const std::vector<std::shared_ptr<const MappedFile>>& mappings;
  std::optional<Side> factor;  // of `module`
  ModuleJob* module = nullptr;
  std::vector<Tally> tallies;
  std::vector<Gram> grams;
  std::atomic<std::size_t> left{0};
  TensorStatistics statistics;
};

struct ModuleJob {
  const LoraModule* module = nullptr;
  ModuleFigures* row = nullptr;
  TensorJob* a = nullptr;  // null: its products are not tensors of the file
  TensorJob* b = nullptr;
  double scaling = 0;
  std::atomic<int> left{2};
};

struct Piece {
  TensorJob* tensor = nullptr;  // null: all of `module` by itself
  ModuleJob* module = nullptr;
  std::size_t index = 0;
  std::int64_t first = 0, count = 0;
};

class Pass {
 public:
  Pass(const Adapter& adapter, const Checkpoint* base) : adapter_(adapter), base_(base) {
    for (const auto& [key, tensor] : adapter.tensors)
      if (is_float(tensor.dtype)) {
        TensorJob& job = tensors_.emplace_back(tensor, adapter.mappings);
        by_key_[key] = &job;
        if (!tensor.bytes.empty()) by_bytes_[tensor.bytes.data()] = &job;
      }
    rows_.resize(adapter.modules.size());
    for (std::size_t i = 0; i < rows_.size(); ++i) add_module(adapter.modules[i], rows_[i]);
    for (TensorJob& job : tensors_)
      if (!job.factor) cut(job);
    if (base != nullptr) add_base();
  }

  AdapterFigures run(int threads, const Sinks& sinks) {
    parallel_for(pieces_.size(), threads, [&](std::size_t i) {
      sinks.throw_if_cancelled();
      work(pieces_[i]);
    });
    AdapterFigures result;
    for (const auto& [key, job] : by_key_)
      result.tensors.emplace_hint(result.tensors.end(), key, job->statistics);
    for (std::size_t i = 0; i < rows_.size(); ++i) finish_row(adapter_.modules[i], rows_[i]);
    result.modules = std::move(rows_);
    return result;
  }

 private:
  TensorJob* job_of(const Tensor& tensor) const {
    const auto found = by_bytes_.find(tensor.bytes.data());
    const bool is_same =
        found != by_bytes_.end() && found->second->tensor.bytes.size() == tensor.bytes.size();
    return is_same ? found->second : nullptr;
  }

  void add_module(const LoraModule& module, ModuleFigures& row) {
    ModuleJob& job = modules_.emplace_back();
    job.module = &module;
    job.row = &row;
    const bool is_one_product = module.experts == 1 && module.groups == 1 && module.blocks_a == 1 &&
                                module.blocks_b == 1 && !module.diagonal;
    if (is_one_product) {
      const UpdateFactor factor = update_factors(module).front();
      job.a = job_of(factor.a);
      job.b = job_of(factor.b);
      job.scaling = factor.scaling;
    }
    if (job.a == nullptr || job.b == nullptr || job.a == job.b || job.a->factor || job.b->factor ||
        !is_thin(job.a->matrix, job.b->matrix)) {
      job.a = job.b = nullptr;
      pieces_.push_back({nullptr, &job, 0, 0, 0});
      return;
    }
    job.a->factor = Side::rows;
    job.b->factor = Side::columns;
    for (TensorJob* tensor : {job.a, job.b}) {
      tensor->module = &job;
      cut(*tensor);
    }
  }

  void cut(TensorJob& job) {
    std::int64_t total = job.matrix.rows;
    std::int64_t size = rows_at_once(job.matrix);
    if (job.factor) {
      total = length_of(job.matrix, *job.factor);
      const std::int64_t rank =
          std::max<std::int64_t>(1, numbers::rank_of(job.matrix, *job.factor));
      size = std::max<std::int64_t>(1, kPieceValues / rank / kPanelMultiple) * kPanelMultiple;
    }
    for (std::int64_t first = 0; first < total; first += size)
      pieces_.push_back({&job, nullptr, job.left++, first, std::min(size, total - first)});
    job.tallies.resize(job.left);
    if (job.factor) job.grams.resize(job.left);
  }

  void add_base() {
    for (const LoraModule& module : adapter_.modules) {
      const Tensor* weight = base_->find(module.base_name);
      if (weight == nullptr || !is_float(weight->dtype)) continue;
      const auto [place, is_new] = weights_.emplace(weight, nullptr);
      if (!is_new) continue;
      place->second = &tensors_.emplace_back(*weight, base_->mappings);
      cut(*place->second);
    }
  }

  void work(const Piece& piece) {
    if (piece.tensor == nullptr) {
      piece.module->row->update = update_statistics(*piece.module->module);
      return;
    }
    TensorJob& job = *piece.tensor;
    if (job.factor) {
      FactorSums sums = sum_vectors(job.matrix, *job.factor, piece.first, piece.count);
      job.grams[piece.index] = std::move(sums.gram);
      job.tallies[piece.index] = std::move(sums.tally);
    } else {
      job.tallies[piece.index] = tally_rows(job.matrix, piece.first, piece.count);
      const std::byte* first = job.matrix.at(piece.first, 0);
      const std::byte* last = job.matrix.at(piece.first + piece.count, 0);
      drop_pages(job.mappings, {first, last});
    }
    if (--job.left == 0) finish(job);
  }

  static void finish(TensorJob& job) {
    job.statistics = join(job.matrix, job.tallies);
    job.tallies = {};
    if (!job.factor) return;
    drop_pages(job.mappings, job.tensor.bytes);
    for (std::size_t i = 1; i < job.grams.size(); ++i) job.grams[0] += job.grams[i];
    job.grams.resize(1);
    job.grams[0].mirror();
    if (--job.module->left == 0) finish(*job.module);
  }

  static void finish(ModuleJob& job) {
    UpdateStatistics& update = job.row->update;
    if (job.a->statistics.first_non_finite < 0 && job.b->statistics.first_non_finite < 0)
      update = add_up({figures_of(job.a->grams[0], job.b->grams[0], job.scaling, job.b->matrix.rows,
                                  job.a->matrix.columns, job.module->kind == LayerKind::embedding)},
                      job.module->rank);
    update.is_direction = job.module->magnitude.has_value();
    job.a->grams = {};
    job.b->grams = {};
  }

  void finish_row(const LoraModule& module, ModuleFigures& row) const {
    row.module_path = module.module_path;
    row.kind = module.kind;
    row.rank = module.rank;
    row.alpha = module.alpha;
    row.scaling = module.scaling;
    const TensorJob* a = job_of(module.a);
    const TensorJob* b = job_of(module.b);
    row.a = a ? a->statistics : statistics_of(module.a);
    row.b = b ? b->statistics : statistics_of(module.b);
    const Tensor* weight = base_ ? base_->find(module.base_name) : nullptr;
    const auto found = weights_.find(weight);
    if (found == weights_.end()) return;
    row.base_mean = found->second->statistics.mean;
    row.base_norm = found->second->statistics.norm;
    if (*row.base_norm > 0) row.relative_update = row.update.norm / *row.base_norm;
  }

  const Adapter& adapter_;
  const Checkpoint* base_;
  std::deque<TensorJob> tensors_;
  std::deque<ModuleJob> modules_;
  std::map<std::string, TensorJob*> by_key_;
  std::map<const std::byte*, TensorJob*> by_bytes_;
  std::map<const Tensor*, TensorJob*> weights_;
  std::vector<ModuleFigures> rows_;
  std::vector<Piece> pieces_;
};

}  // namespace

AdapterFigures adapter_figures(const Adapter& adapter, const Checkpoint* base, int threads,
                               const Sinks& sinks) {
  return Pass(adapter, base).run(threads, sinks);
}

}  // namespace lora
