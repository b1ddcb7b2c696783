// What a disk may hold after the power failed: the calls that WatchedCalls wrote down, replayed on a model of a file
// system that keeps no promise but those of POSIX. Bytes are on the disk for certain once their file was synced, names
// once their folder was; of everything later any part may be there or not, and writes may be torn. kill -9 shows none
// of this, because the kernel's cache survives it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/testing/system_calls.h"

namespace gemma_sft {

// What happens to writes that were not synced.
enum class UnsyncedBytes { kDropped, kTenPercentKept, kHalfKept, kTornAt512, kTornAt4096, kKept };
// What happens to names (made, changed, removed) whose folder was not synced.
enum class UnsyncedNames { kDropped, kTenPercentKept, kHalfKept, kFirstOnesKept, kKept };

struct PowerCut {
  UnsyncedBytes bytes;
  UnsyncedNames names;
};

PowerCut random_power_cut(std::mt19937_64& random);
std::string describe(const PowerCut& cut);

// The folder `root` while calls happen to it. It starts empty, or with what is in it on the disk, all of it durable.
class ModelDisk {
 public:
  // Throws std::logic_error for a call that the model does not know (a rename from one folder to another).
  explicit ModelDisk(std::filesystem::path root);
  ~ModelDisk();

  void apply(const SystemCall& call);
  // Writes into `destination`, which must not exist, what could be found there after a power cut now.
  void write_after(const PowerCut& cut, std::mt19937_64& random, const std::filesystem::path& destination) const;

 private:
  struct Node;
  std::filesystem::path root_;
  std::shared_ptr<Node> tree_;
};

}  // namespace gemma_sft
