// Loss on validation rows: a sum over target tokens, so that it does not depend on how rows were put into batches.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "data/batches/batch_stream.h"
#include "model/gemma.h"
#include "trainer/step_watch.h"

namespace gemma_sft {

struct EvaluationLoss {
  double sum = 0;  // of -log p over all targets
  int64_t tokens = 0;

  double mean() const { return sum / static_cast<double>(tokens); }
};

// Rows of one file. Refers to the model. One thread at a time.
class Evaluator {
 public:
  Evaluator(Gemma& model, std::shared_ptr<const DatasetIndex> index, const std::vector<IndexedRow>& rows,
            std::shared_ptr<const Tokenizer> tokenizer, const BatchOptions& batches);

  // Draws no random number and leaves no gradient. nullopt when a stop signal came in between. `step` is for messages;
  // `watch` takes each micro-batch for a step of its own.
  // Throws Error(kOutOfMemory); Error(kNonFinite) that names the rows of the first micro-batch without a finite loss.
  std::optional<EvaluationLoss> run(int64_t step, StepWatch* watch = nullptr);

 private:
  Gemma& model_;
  EvaluationStream stream_;
};

// -log p of the batch's targets, summed; without gradients. [fp32 arithmetic, summed in the model's device]
double loss_of(Gemma& model, const PackedBatch& batch);

}  // namespace gemma_sft
