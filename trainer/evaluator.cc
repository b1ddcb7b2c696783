#include "trainer/evaluator.h"

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cmath>

#include "configs/error.h"
#include "model/chunked_cross_entropy.h"
#include "model/device_batch.h"
#include "trainer/stop_signal.h"
#include "trainer/training_failure.h"

namespace gemma_sft {
namespace {

// LoRA dropout is off while this lives, and on again however it ends.
class WithoutDropout {
 public:
  explicit WithoutDropout(Gemma& model) : model_(model) { model_.set_training(false); }
  ~WithoutDropout() { model_.set_training(true); }
  WithoutDropout(const WithoutDropout&) = delete;
  WithoutDropout& operator=(const WithoutDropout&) = delete;

 private:
  Gemma& model_;
};

}  // namespace

Evaluator::Evaluator(Gemma& model, std::shared_ptr<const DatasetIndex> index, const std::vector<IndexedRow>& rows,
                     std::shared_ptr<const Tokenizer> tokenizer, const BatchOptions& batches)
    : model_(model), stream_(std::move(index), rows, std::move(tokenizer), batches) {}

std::optional<EvaluationLoss> Evaluator::run(int64_t step, StepWatch* watch) {
  EvaluationLoss loss;
  stream_.rewind();
  const WithoutDropout evaluating(model_);
  for (;;) {
    if (watch != nullptr) watch->begin(step, "evaluation, reading data");
    const std::unique_ptr<PackedBatch> batch = stream_.next();
    if (batch == nullptr || stop_signal() != 0) break;
    if (watch != nullptr) watch->enter("evaluation", describe_rows({*batch}));
    double sum = 0;
    with_memory_errors_explained({"evaluation", step, batch.get()}, [&] { sum = loss_of(model_, *batch); });
    if (!std::isfinite(sum)) {
      throw Error(ErrorKind::kNonFinite,
                  fmt::format("step {}: the evaluation loss is {}; the last checkpoint is from before it. The rows: {}",
                              step, without_sign_of_nan(sum), describe_rows({*batch})));
    }
    loss.sum += sum;
    loss.tokens += batch->target_tokens;
  }
  if (watch != nullptr) watch->end();
  if (stop_signal() != 0) return std::nullopt;
  return loss;
}

double loss_of(Gemma& model, const PackedBatch& batch) {
  const c10::NoGradGuard no_grad;
  const DeviceBatch on_device = to_device(batch, model.options().device);
  return chunked_cross_entropy(model.forward(on_device), model.head_weight(), on_device.target_rows,
                               on_device.targets.index_select(0, on_device.target_rows),
                               {.logit_softcap = model.config().logit_softcap})
      .item<double>();
}

}  // namespace gemma_sft
