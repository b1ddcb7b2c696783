#include "data/files/line_reader.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace gemma_sft {
namespace {

constexpr size_t kWindowBytes = 1 << 20;
constexpr size_t kRandomAccessBytes = 8 << 10;  // most rows fit, and a page or two is what the disk reads anyway

void fill(const InputFile& file, uint64_t offset, size_t size, std::string& block) {
  // No more than the file has: a small one must not pay for a large window.
  const uint64_t left = file.size() > offset ? file.size() - offset : 0;
  block.resize(static_cast<size_t>(std::min<uint64_t>(size, left)));
  block.resize(file.read_some(offset, block.data(), block.size()));
}

}  // namespace

LineReader::LineReader(InputFile file, uint64_t max_line_bytes)
    : file_(std::move(file)), max_line_bytes_(max_line_bytes) {}

std::optional<Line> LineReader::next() {
  if (skipping_) skip_rest();
  size_t begin = position_ - window_start_;
  size_t end = window_.find('\n', begin);
  if (end == std::string::npos) {
    fill(file_, position_, kWindowBytes, window_);
    window_start_ = position_;
    begin = 0;
    end = window_.find('\n');
    if (window_.empty()) return std::nullopt;
  }
  Line line;
  if (end != std::string::npos && end - begin <= max_line_bytes_) {
    line.byte = position_;
    line.number = number_ + 1;
    line.bytes = end - begin;
    line.text = window_.substr(begin, end - begin);
  } else {
    line = long_line(position_, number_ + 1, end == std::string::npos ? window_.size() : 0);
  }
  skipping_ = line.too_long;
  position_ += line.bytes + (skipping_ ? 0 : 1);
  if (position_ - window_start_ > window_.size()) {
    window_.clear();
    window_start_ = position_;
  }
  ++number_;
  return line;
}

void LineReader::skip_rest() {
  skipping_ = false;
  for (;;) {
    fill(file_, position_, kWindowBytes, window_);
    window_start_ = position_;
    const size_t end = window_.find('\n');
    position_ += end == std::string::npos ? window_.size() : end + 1;
    if (end != std::string::npos || window_.empty()) return;
  }
}

Line LineReader::at(uint64_t byte, int64_t number) const {
  Line line;
  line.byte = byte;
  line.number = number;
  fill(file_, byte, kRandomAccessBytes, line.text);
  const size_t end = line.text.find('\n');
  if (end == std::string::npos || end > max_line_bytes_) {
    return long_line(byte, number, end == std::string::npos ? line.text.size() : 0);
  }
  line.text.resize(end);
  line.bytes = end;
  return line;
}

Line LineReader::long_line(uint64_t byte, int64_t number, uint64_t seen) const {
  Line line;
  line.byte = byte;
  line.number = number;
  std::string block;
  // Twice over the file, so that the memory is one block or exactly one line of allowed length.
  for (line.bytes = seen; line.bytes <= max_line_bytes_; line.bytes += block.size()) {
    fill(file_, byte + line.bytes, kWindowBytes, block);
    const size_t end = block.find('\n');
    if (end != std::string::npos) {
      line.bytes += end;
      break;
    }
    if (block.empty()) break;
  }
  line.too_long = line.bytes > max_line_bytes_;
  if (!line.too_long) fill(file_, byte, line.bytes, line.text);
  return line;
}

}  // namespace gemma_sft
