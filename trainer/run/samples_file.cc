#include "trainer/run/samples_file.h"
#include "trainer/run/utf8_json.h"

#include <nlohmann/json.hpp>

namespace gemma_sft {

void SamplesFile::on_step(const StepRecord& record) {
  const nlohmann::ordered_json row = {{"step", record.step}, {"micro_batches", record.sample_ids}};
  rows_.append(utf8_json(row));
}

}  // namespace gemma_sft
