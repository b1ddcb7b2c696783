#define GEMMA_SFT_CPU_KERNELS cpu_kernels_avx512
#define GEMMA_SFT_CPU_SET "avx512"
#define GEMMA_SFT_CPU_LANES 16
#include "model/cpu_kernels_body.h"
