// A file of JSON lines, each about one step, in the order of the steps: appended as the run goes on, cut back to its
// checkpoint when the run is taken up again. No torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "data/files/file_system.h"

namespace gemma_sft {

// Opened, or made, at once. One thread. Throws Error(kIo) as the file layer does.
class StepRows {
 public:
  StepRows(std::filesystem::path path, FileSystem& files);

  // `row`: a JSON object with a whole number "step", without a line end. One write.
  void append(const std::string& row);
  // Cuts the rows past `step`, and what a crash tore behind the last good row. With `or_with` also from the row of
  // `step` on that has this member. A line between good rows that is none of them stays as it is. The step of the last
  // row that is left, 0 without any.
  int64_t truncate_after(int64_t step, const std::string& or_with = {});
  int64_t last_step() const;  // of the last good row; 0: there is none
  void sync();                // fsync

 private:
  struct Good {
    uint64_t size = 0;  // of the file
    uint64_t end = 0;   // of the last good row
    int64_t last_step = 0;
  };
  Good find_good(int64_t step, const std::string& or_with) const;

  std::filesystem::path path_;
  FileSystem& files_;
  std::unique_ptr<WritableFile> file_;
};

}  // namespace gemma_sft
