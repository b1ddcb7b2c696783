// training_flops_of MODEL_FOLDER LORA_RANK LENGTH...: prints what model/training_flops.h counts for one pass over
// documents of these lengths; rank 0: all weights are trained. For compare.py, whose two sides share this count.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "configs/error.h"
#include "model/training_flops.h"

int main(int count, char** words) {
  if (count < 4) {
    std::fputs("usage: training_flops_of MODEL_FOLDER LORA_RANK LENGTH...\n", stderr);
    return 2;
  }
  try {
    const gemma_sft::GemmaConfig config = gemma_sft::load_gemma_config(words[1]);
    const int64_t rank = std::stoll(words[2]);
    std::vector<int64_t> lengths;
    for (int i = 3; i < count; ++i) lengths.push_back(std::stoll(words[i]));
    const int64_t adapter = rank > 0 ? gemma_sft::adapter_weights(config, rank) : 0;
    std::printf("%.17g\n", gemma_sft::training_flops(config, lengths, adapter));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "training_flops_of: %s\n", error.what());
    return 2;
  }
  return 0;
}
