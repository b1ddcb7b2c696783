#include <c10/cuda/CUDAStream.h>

#include "model/gpu/fused.h"

namespace gemma_sft {

GpuStream fused_stream(const at::Tensor& tensor) {
  return tensor.is_cuda() ? c10::cuda::getCurrentCUDAStream(tensor.device().index()).stream() : nullptr;
}

}  // namespace gemma_sft
