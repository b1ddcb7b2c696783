#include "trainer/tunix/job_dataset.h"

#include "data/files/sha256.h"
#include "data/text/tokenize_file.h"

namespace gemma_sft {

namespace fs = std::filesystem;

DatasetUpload write_job_dataset(const DatasetIndex& index, const std::shared_ptr<const Tokenizer>& tokenizer,
                                bool parse_control_tokens, const fs::path& run_folder, FileSystem& files) {
  DatasetUpload upload;
  upload.file = run_folder / kJobDatasetName;
  upload.rows = static_cast<int64_t>(index.train.size());
  const fs::path temporary = run_folder / (std::string(".") + kJobDatasetName + ".tmp");
  RowLoader rows(index, tokenizer, parse_control_tokens);
  Sha256 digest;
  const std::unique_ptr<WritableFile> file = files.create(temporary);
  for (const IndexedRow& row : index.train) {
    const std::string line = token_row_line(rows.load(row));
    file->append(line);
    digest.update(line.data(), line.size());
    upload.bytes += line.size();
  }
  file->sync();
  file->close();
  files.rename(temporary, upload.file);
  files.sync_directory(run_folder);
  upload.sha256 = digest.hex();
  return upload;
}

}  // namespace gemma_sft
