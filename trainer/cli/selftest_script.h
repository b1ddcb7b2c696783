// The Python script that makes a selftest case from a model of the user's: make_selftest_case.py, kept in the program.
#pragma once

#include <string_view>

namespace gemma_sft {

std::string_view selftest_script();

}  // namespace gemma_sft
