#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/text/sentencepiece_model.h"
#include "data/text/tokenizer_json.h"
#include "data/text/tokenizer_trainer.h"
#include "trainer/cli/front_end_commands.h"
#include "trainer/run/utf8_json.h"

namespace gemma_sft {

namespace fs = std::filesystem;

int run_tokenizer_train(const TokenizerTrainArguments& arguments, const Output& output) {
  std::vector<fs::path> corpus;
  for (const std::string& file : arguments.corpus) {
    if (!fs::exists(file)) throw Error(ErrorKind::kData, fmt::format("{}: not found; --corpus takes text files", file));
    corpus.emplace_back(file);
  }
  const fs::path folder = arguments.output;
  if (fs::exists(folder / "tokenizer.model")) {
    throw Error(ErrorKind::kUsage, fmt::format("{}: exists already; give another --output or remove it first",
                                               (folder / "tokenizer.model").string()));
  }
  const std::string model = train_tokenizer(corpus, {.vocab_size = arguments.vocab_size});
  const SentencePieceModel pieces = parse_sentencepiece_model(model, (folder / "tokenizer.model").string());
  FileSystem& files = real_file_system();
  files.make_directories(folder);
  write_file_durably(files, folder / "tokenizer.json", make_tokenizer_json(pieces));
  write_file_durably(files, folder / "tokenizer_config.json", make_tokenizer_config_json(pieces));
  write_file_durably(files, folder / "tokenizer.model", model);
  if (output.json()) {
    const nlohmann::ordered_json json = {{"output", folder.string()}, {"pieces", pieces.pieces.size()}};
    output.print(utf8_json(json) + "\n");
  }
  output.status(fmt::format("Tokenizer of {} pieces: {}", pieces.pieces.size(), folder.string()));
  return 0;
}

}  // namespace gemma_sft
