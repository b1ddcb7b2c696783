#include "data/files/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <set>
#include <string_view>

#include "configs/error.h"
#include "data/files/json_text.h"
#include "data/files/pickle.h"
#include "data/files/sha256.h"
#include "data/files/utf8.h"

namespace gemma_sft {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr char kMetadataName[] = "__metadata__";

struct DtypeName {
  TensorDtype dtype;
  const char* name;
  uint64_t bytes;
};
constexpr DtypeName kDtypes[] = {
    {TensorDtype::kF64, "F64", 8},   {TensorDtype::kF32, "F32", 4}, {TensorDtype::kF16, "F16", 2},
    {TensorDtype::kBF16, "BF16", 2}, {TensorDtype::kI64, "I64", 8}, {TensorDtype::kI32, "I32", 4},
    {TensorDtype::kI16, "I16", 2},   {TensorDtype::kI8, "I8", 1},   {TensorDtype::kU8, "U8", 1},
    {TensorDtype::kBool, "BOOL", 1},
};

const DtypeName& dtype_row(TensorDtype dtype) {
  for (const DtypeName& row : kDtypes) {
    if (row.dtype == dtype) return row;
  }
  throw Error(ErrorKind::kInternal, "unknown tensor dtype");
}

std::optional<TensorDtype> find_dtype(std::string_view name) {
  for (const DtypeName& row : kDtypes) {
    if (name == row.name) return row.dtype;
  }
  return std::nullopt;
}

// Bytes of a tensor, or nullopt when the number does not fit.
std::optional<uint64_t> find_tensor_bytes(TensorDtype dtype, const std::vector<int64_t>& shape) {
  uint64_t bytes = bytes_per_element(dtype);
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) return std::nullopt;
  }
  return bytes;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

InputFile open_weights(const std::filesystem::path& path) {
  try {
    return InputFile(path);
  } catch (const Error& error) {
    throw Error(ErrorKind::kModel, error.what());
  }
}

// What a file that is not safetensors is, when its first bytes tell, and what to do about it; else "".
std::string recognise(std::string_view start) {
  const auto begins_with = [&](std::string_view magic) { return start.substr(0, magic.size()) == magic; };
  if (const std::string pickle = recognise_pickle(start); !pickle.empty()) return pickle;
  if (begins_with("GGUF")) return "this is a GGUF file; take the model's Hugging Face folder instead";
  if (begins_with("version https://git-lfs")) {
    return "this is a Git LFS pointer, not the file itself; run git lfs pull in the model's folder";
  }
  if (begins_with("<!DOCTYPE") || begins_with("<!doctype") || begins_with("<html")) {
    return "this is an HTML page, not the file itself; download it again";
  }
  return "";
}

// Reads and checks one header. Errors name the byte of the file, so that the place can be looked at.
class HeaderReader {
 public:
  HeaderReader(const InputFile& file) : file_(file) {}

  void read() {
    char start[kPickleStartBytes] = {};
    const size_t start_bytes = file_.read_some(0, start, sizeof(start));
    start_ = std::string_view(start, start_bytes);
    if (start_bytes < kLengthBytes) fail(0, fmt::format("expected a header length of 8 bytes, found {}", start_bytes));
    uint64_t length = 0;
    for (size_t i = 0; i < kLengthBytes; ++i)
      length |= static_cast<uint64_t>(static_cast<uint8_t>(start[i])) << (8 * i);
    if (length > SafetensorsFile::kMaxHeaderBytes) {
      fail(0, fmt::format("expected a header of at most {} bytes, found {}", SafetensorsFile::kMaxHeaderBytes, length));
    }
    if (length > file_.size() - kLengthBytes) {
      fail(0, fmt::format("the header is said to be {} bytes long, but the file ends after {} bytes", length,
                          file_.size()));
    }
    if (length < 2 || start[kLengthBytes] != '{') {
      fail(kLengthBytes, fmt::format("expected a JSON object, found {}",
                                     quoted_excerpt(start_.substr(kLengthBytes, std::min<uint64_t>(length, 8)))));
    }
    header_.resize(length);
    if (file_.read_some(kLengthBytes, header_.data(), length) != length) fail(kLengthBytes, "the file became shorter");
    data_start = kLengthBytes + length;
    check_header();
    check_offsets();
  }

  uint64_t data_start = 0;
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;

 private:
  [[noreturn]] void fail(uint64_t byte, const std::string& message) const {
    std::string remedy = byte <= kLengthBytes ? recognise(start_) : "";
    if (remedy.empty()) remedy = "the file is damaged or not in the safetensors format; download or write it again";
    throw Error(ErrorKind::kModel, fmt::format("{}: byte {}: {}; {}", file_.path().string(), byte, message, remedy));
  }

  [[noreturn]] void fail_header(size_t header_byte, const std::string& message) const {
    fail(kLengthBytes + header_byte, message);
  }

  [[noreturn]] void fail_tensor(size_t header_byte, const std::string& name, const std::string& message) const {
    fail_header(header_byte, fmt::format("tensor {}: {}", quoted_excerpt(name, 80), message));
  }

  void check_header() {
    // Depth: an entry is two deep, extra fields may be a little more. Members: every tensor has at most three open at
    // once.
    if (const auto problem = find_json_problem(header_, {.max_depth = 64, .max_members = kMaxMembers})) {
      fail_header(problem->byte, fmt::format("header: expected {}, found {}", problem->expected, problem->found));
    }
    JsonValue(header_).each_member([this](const JsonMember& member) {
      if (member.name == kMetadataName) {
        read_metadata(member.value);
      } else {
        read_tensor(member);
      }
      return true;
    });
  }

  void read_metadata(const JsonValue& value) {
    if (value.kind() != JsonKind::kObject) {
      fail_header(value.byte(), fmt::format("{}: expected an object, found {}", kMetadataName, value.description()));
    }
    value.each_member([this](const JsonMember& member) {
      if (member.value.kind() != JsonKind::kString) {
        fail_header(member.value.byte(), fmt::format("{}: {}: expected a string, found {}", kMetadataName,
                                                     quoted_excerpt(member.name), member.value.description()));
      }
      metadata.emplace(member.name, member.value.string());
      return true;
    });
  }

  void read_tensor(const JsonMember& entry) {
    if (tensors.size() >= SafetensorsFile::kMaxTensors) {
      fail_header(entry.name_byte,
                  fmt::format("expected at most {} tensors, found more", SafetensorsFile::kMaxTensors));
    }
    if (entry.value.kind() != JsonKind::kObject) {
      fail_tensor(entry.value.byte(), entry.name, "expected an object, found " + entry.value.description());
    }
    TensorInfo info;
    info.name = entry.name;
    std::optional<TensorDtype> dtype;
    bool has_shape = false;
    std::vector<int64_t> offsets;
    size_t offsets_byte = 0;
    entry.value.each_member([&](const JsonMember& member) {
      if (member.name == "dtype") {
        dtype = read_dtype(entry.name, member.value);
      } else if (member.name == "shape") {
        info.shape = read_sizes(entry.name, member, SafetensorsFile::kMaxDimensions);
        has_shape = true;
      } else if (member.name == "data_offsets") {
        offsets = read_sizes(entry.name, member, 2);
        offsets_byte = member.value.byte();
        if (offsets.size() != 2)
          fail_tensor(offsets_byte, entry.name, "data_offsets: expected two numbers, found fewer");
      }  // other fields: the reference passes over them too
      return true;
    });
    const char* missing = !dtype ? "dtype" : !has_shape ? "shape" : offsets.empty() ? "data_offsets" : nullptr;
    if (missing) fail_tensor(entry.value.byte(), entry.name, fmt::format("{} is missing", missing));
    info.dtype = *dtype;
    info.begin = static_cast<uint64_t>(offsets[0]);
    info.end = static_cast<uint64_t>(offsets[1]);
    if (info.end < info.begin) {
      fail_tensor(offsets_byte, entry.name, fmt::format("data_offsets end before they begin: {}", shape_text(offsets)));
    }
    const std::optional<uint64_t> bytes = find_tensor_bytes(info.dtype, info.shape);
    if (!bytes) {
      fail_tensor(entry.value.byte(), entry.name, fmt::format("the shape {} is too large", shape_text(info.shape)));
    }
    if (*bytes != info.bytes()) {
      fail_tensor(offsets_byte, entry.name,
                  fmt::format("data_offsets {} span {} bytes, but {} {} takes {}", shape_text(offsets), info.bytes(),
                              safetensors_name(info.dtype), shape_text(info.shape), *bytes));
    }
    tensors.push_back(std::move(info));
  }

  TensorDtype read_dtype(const std::string& tensor, const JsonValue& value) const {
    if (value.kind() != JsonKind::kString) {
      fail_tensor(value.byte(), tensor, "dtype: expected a string, found " + value.description());
    }
    const std::string name = value.string();
    if (const auto dtype = find_dtype(name)) return *dtype;
    throw Error(
        ErrorKind::kModel,
        fmt::format("{}: byte {}: tensor {}: dtype {} is not supported; supported are F64, F32, F16, BF16, I64, "
                    "I32, I16, I8, U8 and BOOL: take or make an unquantised version of the model",
                    file_.path().string(), kLengthBytes + value.byte(), quoted_excerpt(tensor, 80),
                    quoted_excerpt(name, 20)));
  }

  // Non-negative integers, at most `most` of them.
  std::vector<int64_t> read_sizes(const std::string& tensor, const JsonMember& member, size_t most) const {
    if (member.value.kind() != JsonKind::kArray) {
      fail_tensor(member.value.byte(), tensor,
                  fmt::format("{}: expected an array, found {}", member.name, member.value.description()));
    }
    std::vector<int64_t> sizes;
    member.value.each_element([&](const JsonValue& element) {
      const std::optional<int64_t> size =
          element.kind() == JsonKind::kNumber ? element.integer() : std::optional<int64_t>();
      if (!size || *size < 0) {
        fail_tensor(
            element.byte(), tensor,
            fmt::format("{}: expected a whole number from 0 to 2^63-1, found {}", member.name, element.description()));
      }
      if (sizes.size() == most) {
        fail_tensor(element.byte(), tensor, fmt::format("{}: expected at most {} numbers", member.name, most));
      }
      sizes.push_back(*size);
      return true;
    });
    return sizes;
  }

  // The tensors must tile the rest of the file: no overlap, no hole, nothing after the last.
  void check_offsets() {
    std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    uint64_t expected = 0;
    for (const TensorInfo& info : tensors) {
      if (info.begin != expected) {
        fail(data_start, fmt::format("tensor {}: the data begin at offset {}, expected {}: {}",
                                     quoted_excerpt(info.name, 80), info.begin, expected,
                                     info.begin < expected ? "they overlap the tensor before" : "there is a hole"));
      }
      expected = info.end;
    }
    const uint64_t found = file_.size() - data_start;
    if (found == expected) return;
    if (found < expected) {
      const auto cut = std::find_if(tensors.begin(), tensors.end(), [&](const TensorInfo& t) { return t.end > found; });
      fail(file_.size(), fmt::format("tensor {}: the file is cut short: expected {} bytes of data, found {}",
                                     quoted_excerpt(cut->name, 80), expected, found));
    }
    fail(data_start + expected, fmt::format("expected the end of the file, found {} more bytes", found - expected));
  }

  static constexpr size_t kMaxMembers = SafetensorsFile::kMaxTensors + 4096;

  const InputFile& file_;
  std::string_view start_;
  std::string header_;
};

// The 8 bytes of length and the JSON after it, padded so that the data are aligned.
std::string make_header(const std::filesystem::path& path, const std::vector<TensorSource>& tensors,
                        const std::map<std::string, std::string>& metadata, uint64_t& data_bytes) {
  const auto refuse = [&path](const std::string& name, const char* why) {
    throw Error(ErrorKind::kInternal,
                fmt::format("{}: cannot write tensor {}: {}", path.string(), quoted_excerpt(name, 80), why));
  };
  std::vector<std::string> entries;
  if (!metadata.empty()) {
    std::vector<std::string> members;
    for (const auto& [name, value] : metadata) members.push_back(json_quoted(name) + ":" + json_quoted(value));
    entries.push_back(fmt::format("\"{}\":{{{}}}", kMetadataName, fmt::join(members, ",")));
  }
  std::set<std::string> names;
  uint64_t offset = 0;
  for (const TensorSource& tensor : tensors) {
    if (tensor.name == kMetadataName || !names.insert(tensor.name).second) refuse(tensor.name, "the name is taken");
    if (find_utf8_problem(tensor.name)) refuse(tensor.name, "the name is not UTF-8");
    const std::optional<uint64_t> bytes = find_tensor_bytes(tensor.dtype, tensor.shape);
    uint64_t end = 0;
    if (!bytes || __builtin_add_overflow(offset, *bytes, &end)) refuse(tensor.name, "its shape is impossible");
    entries.push_back(fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                                  json_quoted(tensor.name), safetensors_name(tensor.dtype),
                                  fmt::join(tensor.shape, ","), offset, end));
    offset = end;
  }
  data_bytes = offset;
  std::string json = fmt::format("{{{}}}", fmt::join(entries, ","));
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > SafetensorsFile::kMaxHeaderBytes || tensors.size() > SafetensorsFile::kMaxTensors) {
    throw Error(ErrorKind::kInternal, path.string() + ": too many tensors for one safetensors file");
  }
  std::string header;
  for (size_t i = 0; i < kLengthBytes; ++i) header += static_cast<char>((json.size() >> (8 * i)) & 0xff);
  return header + json;
}

}  // namespace

const char* safetensors_name(TensorDtype dtype) { return dtype_row(dtype).name; }

uint64_t bytes_per_element(TensorDtype dtype) { return dtype_row(dtype).bytes; }

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(open_weights(path)) {
  HeaderReader reader(file_);
  reader.read();
  data_start_ = reader.data_start;
  tensors_ = std::move(reader.tensors);
  metadata_ = std::move(reader.metadata);
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void SafetensorsFile::read(const TensorInfo& info, void* destination) const {
  if (file_.read_some(data_start_ + info.begin, destination, info.bytes()) != info.bytes()) {
    throw Error(ErrorKind::kModel,
                fmt::format("{}: byte {}: tensor {}: the file became shorter while it was being read", path().string(),
                            data_start_ + info.begin, quoted_excerpt(info.name, 80)));
  }
}

WrittenFile write_safetensors(FileSystem& files, const std::filesystem::path& path,
                              const std::vector<TensorSource>& tensors, std::map<std::string, std::string> metadata) {
  constexpr uint64_t kBlockBytes = 4 << 20;  // hashed and written while it is still in the cache
  uint64_t data_bytes = 0;
  const std::string header = make_header(path, tensors, metadata, data_bytes);
  WrittenFile written;
  written.bytes = header.size() + data_bytes;
  files.require_space(path.parent_path(), written.bytes);
  Sha256 digest;
  const std::unique_ptr<WritableFile> file = files.create(path);
  digest.update(header.data(), header.size());
  file->append(header);
  for (const TensorSource& tensor : tensors) {
    const uint64_t size = *find_tensor_bytes(tensor.dtype, tensor.shape);
    if (size == 0) continue;
    const auto* bytes = static_cast<const char*>(tensor.bytes());
    for (uint64_t done = 0; done < size; done += kBlockBytes) {
      const uint64_t count = std::min(kBlockBytes, size - done);
      digest.update(bytes + done, count);
      file->append(bytes + done, count);
    }
  }
  file->sync();
  file->close();
  written.sha256 = digest.hex();
  return written;
}

}  // namespace gemma_sft
