// The live tensors of a run as checkpoints know them: by name. Hugging Face's for weights, PEFT's for an adapter.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/gemma.h"
#include "trainer/checkpoint/checkpointer.h"
#include "trainer/optimizer.h"

namespace gemma_sft {

std::vector<NamedTensor> trained_weights(const Gemma& model);

// The name of the first that holds NaN or an infinite number.
std::optional<std::string> find_not_finite(const RunTensors& tensors);

// Weights, "exp_avg.<name>", "exp_avg_sq.<name>", "step.<name>", and the random states.
RunTensors run_tensors(const Gemma& model, const Optimizer& optimizer);

// Of the generators that a model on `device` draws from, as copies: "cpu", and "cuda" where it is on a GPU.
std::vector<NamedTensor> random_states(c10::Device device);
void set_random_states(c10::Device device, const std::vector<NamedTensor>& states);

// read_checkpoint into model, optimizer and the random number generators.
void restore_checkpoint(const std::filesystem::path& checkpoint, Gemma& model, Optimizer& optimizer);

}  // namespace gemma_sft
