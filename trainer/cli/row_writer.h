// JSON lines that a command makes: to stdout, or into a file that has its name only when it is complete.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/files/file_system.h"
#include "trainer/cli/output.h"

namespace gemma_sft {

// While rows come in, the file is called FILE.part; a command that fails or is stopped leaves it there. A link stands
// for the file that it points at.
class RowWriter {
 public:
  // No `file`: stdout. Throws Error(kIo).
  RowWriter(const std::optional<std::string>& file, const Output& output, FileSystem& files);
  // Throws Error(kUsage): a folder, a pipe, socket or device, in no folder that exists, or the file `input` that is
  // read. Makes nothing.
  static void require_place(const std::optional<std::string>& file, const std::optional<std::string>& input = {});

  void write(std::string_view line);  // with its newline
  void finish();                      // what is held back goes out; the file gets its name
  void finish_part();                 // as `finish`, but the file keeps the name FILE.part

 private:
  void flush();

  const Output& output_;
  FileSystem& files_;
  std::filesystem::path path_;
  std::unique_ptr<WritableFile> file_;
  std::string held_back_;
  size_t most_held_back_;
};

}  // namespace gemma_sft
