#include "trainer/run/samples_file.h"

#include <nlohmann/json.hpp>

namespace gemma_sft {

void SamplesFile::on_step(const StepRecord& record) {
  const nlohmann::ordered_json row = {{"step", record.step}, {"micro_batches", record.sample_ids}};
  rows_.append(row.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace gemma_sft
