// Lines of a file of any size in bounded memory and time: of a line longer than the limit no more than that is read,
// unless the lines behind it are asked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "data/files/input_file.h"

namespace gemma_sft {

struct Line {
  uint64_t byte = 0;   // where it starts in the file
  int64_t number = 0;  // from 1
  uint64_t bytes = 0;  // its length, without the '\n'; of one that is too long, of the part that was looked at
  bool too_long = false;
  std::string text;  // without the '\n'; empty when too_long
};

// Lines end with '\n'; the last one may lack it, and an empty last one is none. One thread at a time. Throws
// Error(kIo).
class LineReader {
 public:
  LineReader(InputFile file, uint64_t max_line_bytes);

  std::optional<Line> next();
  // The line that starts at `byte`; does not move next().
  Line at(uint64_t byte, int64_t number) const;

  const InputFile& file() const { return file_; }

 private:
  void skip_rest();  // of a line that was too long
  // The rest of a line that starts at `byte` and has no end in its first `seen` bytes.
  Line long_line(uint64_t byte, int64_t number, uint64_t seen) const;

  InputFile file_;
  uint64_t max_line_bytes_;
  bool skipping_ = false;      // position_ is inside a line that was too long
  uint64_t position_ = 0;      // where the next line starts
  int64_t number_ = 0;         // of the last line given
  std::string window_;         // a stretch of the file...
  uint64_t window_start_ = 0;  // ...that starts here
};

}  // namespace gemma_sft
