// A stored trace -> the row that tunix-rt exports for it: one line of JSONL in the shape of a data format. The same
// trace gives the same bytes each time: a training_example has the trace's id, where tunix-rt makes a new one per
// export.
#pragma once

#include <string>

#include "configs/run_config.h"
#include "data/traces/stored_trace.h"

namespace gemma_sft {

// One line without its end: {id, prompts, trace_steps, final_answer, metadata} (trace), {id, prompts, final_answer,
// metadata} with the rendered conversation (tunix_sft), or {id, prompt, response, metadata} (training_example). What
// the trace's own `meta` says wins over the metadata made here. Characters beyond ASCII are written as \uXXXX.
//
// Throws Error(kData) "trace ID: field: expected ..., found ..." when the payload is not a trace, and for
// DataFormat::kTokens, which needs a tokenizer.
std::string export_trace(const StoredTrace& trace, DataFormat format);

}  // namespace gemma_sft
