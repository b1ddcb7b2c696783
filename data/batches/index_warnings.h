// What there is to say about a data file that was read: rows left out or cut, fields not read, control tokens in text.
#pragma once

#include <string>
#include <vector>

#include "data/batches/dataset_index.h"

namespace gemma_sft {

// Complete sentences for people, each with the file's name. `list_of_skipped`: the file of the run folder that lists
// the rows left out; empty: there is none.
std::vector<std::string> index_warnings(const DatasetIndex& index, const std::string& list_of_skipped = "");

}  // namespace gemma_sft
