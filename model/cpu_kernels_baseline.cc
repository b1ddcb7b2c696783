#define GEMMA_SFT_CPU_KERNELS cpu_kernels_baseline
#define GEMMA_SFT_CPU_SET "baseline"
#define GEMMA_SFT_CPU_LANES 4
#include "model/cpu_kernels_body.h"
