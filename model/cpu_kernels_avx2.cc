#define GEMMA_SFT_CPU_KERNELS cpu_kernels_avx2
#define GEMMA_SFT_CPU_SET "avx2"
#define GEMMA_SFT_CPU_LANES 8
#include "model/cpu_kernels_body.h"
