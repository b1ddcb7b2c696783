// The live tensors of a run as checkpoints know them: by name. Hugging Face's for weights, PEFT's for an adapter.
#pragma once

#include <vector>

#include "model/gemma.h"
#include "trainer/checkpoint/checkpointer.h"
#include "trainer/optimizer.h"

namespace gemma_sft {

std::vector<NamedTensor> trained_weights(const Gemma& model);

// Weights, "exp_avg.<name>", "exp_avg_sq.<name>", "step.<name>", and copies of the random states of the CPU ("cpu")
// and, where it is another one, of the model's device ("cuda").
RunTensors run_tensors(const Gemma& model, const Optimizer& optimizer);

// read_checkpoint into model, optimizer and the random number generators.
void restore_checkpoint(const std::filesystem::path& checkpoint, Gemma& model, Optimizer& optimizer);

}  // namespace gemma_sft
