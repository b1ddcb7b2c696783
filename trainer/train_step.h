// One optimizer step: micro-batches -> summed gradients -> divided once by the number of targets, clipped by global
// norm -> update.
//
// The loss of a step is the sum of -log p over all its targets divided by their number, whatever the micro-batches it
// came in: gradients are those of the sum until the optimizer divides them. Norm, clipping and the decision to skip are
// made on the device; the host waits for it once a step, when the update has been started too, to read loss and norm.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "configs/run_config.h"
#include "data/batches/packed_batch.h"
#include "model/gemma.h"
#include "trainer/optimizer.h"

namespace gemma_sft {

struct StepStats {
  double loss = 0;       // mean over the step's targets
  double grad_norm = 0;  // over all trained parameters, before clipping
  int64_t tokens = 0;    // without padding
  int64_t target_tokens = 0;
  bool skipped = false;  // not finite, on_nonfinite: skip: nothing was changed
};

struct TrainStepOptions {
  double max_grad_norm = 1.0;  // 0: no clipping
  OnNonFinite on_nonfinite = OnNonFinite::kStop;
};

// Refers to model and optimizer, which live longer. One thread at a time.
class TrainStep {
 public:
  TrainStep(Gemma& model, Optimizer& optimizer, const TrainStepOptions& options);

  // Forward and backward of one micro-batch. `step` (from 1) is for messages. Throws Error(kOutOfMemory).
  void accumulate(const PackedBatch& batch, int64_t step);

  // Forward and backward of a micro-batch of `step` for the memory it takes, `times` times over the same gradients as
  // in a step of so many; nothing of it is kept. Throws Error(kOutOfMemory).
  void rehearse(const PackedBatch& batch, int64_t times, int64_t step);

  // Norm, clipping and update with learning rate `rate`; gradients are gone afterwards. A loss or norm that is not
  // finite throws Error(kNonFinite), naming `step` and the rows, before anything has changed; with on_nonfinite: skip
  // the step is marked skipped and weights and moments stay as they are. `batches` are those accumulated.
  StepStats apply(double rate, const std::vector<PackedBatch>& batches, int64_t step);

 private:
  // Scalars on the device.
  struct Sums {
    at::Tensor loss_and_norm;  // fp64 [2], each divided by the number of targets
    at::Tensor divisor;        // fp32: targets / clipping coefficient, that of torch.nn.utils.clip_grad_norm_
    at::Tensor skip;           // fp32: 1 where loss or norm is not finite
  };
  at::Tensor forward_and_backward(const PackedBatch& batch);  // the loss: a scalar on the device
  Sums sum_up(double targets) const;

  Gemma& model_;
  Optimizer& optimizer_;
  TrainStepOptions options_;
  std::vector<at::Tensor> losses_;  // one scalar per micro-batch, on the device
  int64_t tokens_ = 0;
  int64_t target_tokens_ = 0;
};

}  // namespace gemma_sft
