// The engine's `operator new`: the standard one, but what it throws says how many bytes were asked for. It stands for
// that of every library in the process.
#include <cstdlib>
#include <new>

#include "trainer/allocation_failure.h"

void* operator new(std::size_t size) {
  for (;;) {
    if (void* memory = std::malloc(size > 0 ? size : 1)) return memory;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw gemma_sft::AllocationFailure(size);
    handler();
  }
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
