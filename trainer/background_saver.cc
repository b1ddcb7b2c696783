#include "trainer/background_saver.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "trainer/device.h"
#include "trainer/stopwatch.h"

namespace gemma_sft {
namespace {

constexpr int64_t kHostReserve = int64_t{1} << 30;  // bytes left to everybody else

// Of the copies on the host. LibTorch rounds pinned blocks up to a power of two.
int64_t bytes_of_copies(const std::vector<NamedTensor>& tensors) {
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    bytes += tensor.device().is_cpu() ? tensor.nbytes() : std::bit_ceil(tensor.nbytes());
  }
  return static_cast<int64_t>(bytes);
}

std::vector<NamedTensor> host_room_for(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> room;
  for (const auto& [name, tensor] : tensors) {
    const auto options = at::TensorOptions().dtype(tensor.scalar_type()).pinned_memory(!tensor.device().is_cpu());
    room.push_back({name, at::empty(tensor.sizes(), options)});
  }
  return room;
}

void copy_to(const std::vector<NamedTensor>& tensors, std::vector<NamedTensor>& room) {
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < tensors.size(); ++i) room[i].tensor.copy_(tensors[i].tensor, /*non_blocking=*/true);
  if (!tensors.empty()) wait_for_device(tensors.front().tensor.device());
}

}  // namespace

struct BackgroundSaver::Save {
  TrainState state;
  CheckpointRecord saved;
  std::exception_ptr failure;
  std::atomic<bool> ended = false;
  Stopwatch watch;
  std::jthread thread;  // the last member: it uses the others, and is waited for before they go
};

BackgroundSaver::BackgroundSaver(Checkpointer& checkpointer, std::function<int64_t()> free_bytes)
    : checkpointer_(checkpointer), free_bytes_(std::move(free_bytes)) {}

BackgroundSaver::~BackgroundSaver() = default;

bool BackgroundSaver::has_room_for(const RunTensors& tensors) {
  if (!copy_.weights.empty()) return true;
  if (free_bytes_() < bytes_of_copies(tensors.weights) + bytes_of_copies(tensors.moments) + kHostReserve) return false;
  try {
    copy_ = {host_room_for(tensors.weights), host_room_for(tensors.moments), {}};
    return true;
  } catch (const c10::Error&) {  // LibTorch's ways to say that there was no memory
  } catch (const std::bad_alloc&) {
  }
  copy_ = {};
  return false;
}

bool BackgroundSaver::begin(const TrainState& state, const RunTensors& tensors) {
  auto save = std::make_unique<Save>();
  if (!has_room_for(tensors)) return false;
  copy_to(tensors.weights, copy_.weights);
  copy_to(tensors.moments, copy_.moments);
  copy_.random = tensors.random;  // copies already
  save->saved.waited_seconds = save->watch.seconds();
  save->state = state;
  save->saved.step = state.step;
  const auto write = [this, &save = *save] {
    try {
      save.saved.folder = checkpointer_.save(save.state, copy_).string();
      save.saved.seconds = save.watch.seconds();
    } catch (...) {
      save.failure = std::current_exception();
    }
    save.ended = true;
  };
  try {
    save->thread = std::jthread(write);
  } catch (const std::system_error&) {
    return false;
  }
  save_ = std::move(save);
  return true;
}

std::optional<int64_t> BackgroundSaver::step() const { return save_ ? std::optional(save_->saved.step) : std::nullopt; }

std::optional<CheckpointRecord> BackgroundSaver::collect() { return save_ && save_->ended ? wait() : std::nullopt; }

std::optional<CheckpointRecord> BackgroundSaver::wait() {
  if (!save_) return std::nullopt;
  const std::unique_ptr<Save> save = std::move(save_);
  const Stopwatch watch;
  save->thread.join();
  save->saved.waited_seconds = std::min(save->saved.waited_seconds + watch.seconds(), save->saved.seconds);
  if (save->failure) std::rethrow_exception(save->failure);
  return save->saved;
}

}  // namespace gemma_sft
