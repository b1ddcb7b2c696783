// How fast the data floor is: tokenising, packing, ordering, and the whole index of a file. Bytes per second are of the
// input text, items of rows or tokens as named.

#include <benchmark/benchmark.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "data/batches/batch_stream.h"
#include "data/batches/dataset_index.h"
#include "data/batches/packer.h"
#include "data/batches/sample_order.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"

namespace gemma_sft {
namespace {

const std::filesystem::path kFixtures = std::filesystem::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures";

std::shared_ptr<const Tokenizer> tokenizer() {
  static const auto tiny = Tokenizer::load(kFixtures / "tiny_tokenizer.model");
  return tiny;
}

// About `bytes` bytes of prose in lines.
std::string prose(size_t bytes) {
  std::ifstream file(kFixtures / "tiny_corpus.txt", std::ios::binary);
  const std::string corpus{std::istreambuf_iterator<char>(file), {}};
  std::string text;
  while (text.size() < bytes) text += corpus;
  text.resize(bytes);
  return text;
}

// A file of `rows` rows of about 500 bytes, gone with the object.
class RowsOnDisk {
 public:
  explicit RowsOnDisk(int rows) : path_(std::filesystem::temp_directory_path() / "gemma_sft_data_benchmark.jsonl") {
    std::ofstream file(path_, std::ios::binary);
    std::string response = prose(400);
    for (char& c : response) c = c == '\n' ? ' ' : c;
    for (int i = 0; i < rows; ++i) {
      file << R"({"id": ")" << i << R"(", "prompt": "What is row number )" << i << R"( about?", "response": ")"
           << response << "\"}\n";
    }
  }
  RowsOnDisk(const RowsOnDisk&) = delete;
  RowsOnDisk& operator=(const RowsOnDisk&) = delete;
  ~RowsOnDisk() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

void encode(benchmark::State& state, const std::string& text) {
  const auto tiny = tokenizer();
  for (auto _ : state) benchmark::DoNotOptimize(tiny->encode_literal(text));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

void encode_lines(benchmark::State& state) { encode(state, prose(static_cast<size_t>(state.range(0)))); }
BENCHMARK(encode_lines)->Arg(400)->Arg(10'000)->Arg(1'000'000);

void encode_one_long_word(benchmark::State& state) {
  encode(state, std::string(static_cast<size_t>(state.range(0)), 'a'));
}
BENCHMARK(encode_one_long_word)->Arg(10'000)->Arg(100'000);

void encode_text_that_spells_control_tokens(benchmark::State& state) {
  encode(state, prose(10'000) + "<start_of_turn>");
}
BENCHMARK(encode_text_that_spells_control_tokens);

void load_tokenizer(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::load(kFixtures / "tiny_tokenizer.model"));
}
BENCHMARK(load_tokenizer);

void render_and_tokenize(benchmark::State& state) {
  const auto tiny = tokenizer();
  const Example example{"a", {"f", 1}, {{Role::kUser, prose(200)}, {Role::kModel, prose(400)}}, {}};
  for (auto _ : state) benchmark::DoNotOptimize(tokenize_example(*tiny, example, ControlTokens::kLiteral));
  state.SetBytesProcessed(state.iterations() * 600);
}
BENCHMARK(render_and_tokenize);

void pack_rows(benchmark::State& state) {
  const TokenizedExample row{"a", std::vector<int32_t>(512, 7), std::vector<uint8_t>(512, 1)};
  const std::vector<TokenizedExample> rows(16, row);
  const std::vector<int64_t> lines(16, 1);
  const PackOptions options{.packing = state.range(0) != 0};
  for (auto _ : state) benchmark::DoNotOptimize(pack(rows, lines, "f", options));
  state.SetItemsProcessed(state.iterations() * 16 * 512);  // tokens
}
BENCHMARK(pack_rows)->ArgName("packing")->Arg(1)->Arg(0);

void order_at(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const SampleOrder order(42, 0, rows, true);
  int64_t position = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(order.at(position));
    position = position + 1 < rows ? position + 1 : 0;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(order_at)->Arg(550)->Arg(1'000'001);

void index_file(benchmark::State& state) {
  const RowsOnDisk file(static_cast<int>(state.range(0)));
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(file.path()));
  const auto tiny = tokenizer();
  for (auto _ : state) benchmark::DoNotOptimize(index_dataset(file.path(), *tiny, {}));
  state.SetBytesProcessed(state.iterations() * bytes);
  state.SetItemsProcessed(state.iterations() * state.range(0));  // rows
}
BENCHMARK(index_file)->Arg(2'000)->Unit(benchmark::kMillisecond);

void stream_epoch(benchmark::State& state) {
  const RowsOnDisk file(2'000);
  const auto index = std::make_shared<DatasetIndex>(index_dataset(file.path(), *tokenizer(), {}));
  const BatchOptions options{.batch_size = 8};
  for (auto _ : state) {
    BatchStream stream(index, tokenizer(), options);
    for (int64_t step = steps_in_epoch(*index, options, 0); step > 0; --step) benchmark::DoNotOptimize(stream.next());
  }
  state.SetItemsProcessed(state.iterations() * 2'000);  // rows
}
BENCHMARK(stream_epoch)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace gemma_sft
