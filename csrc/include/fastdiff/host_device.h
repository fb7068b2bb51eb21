// Functions that host and device share.
#pragma once

#ifdef __CUDACC__
#define FASTDIFF_HD __host__ __device__ __forceinline__
#else
#define FASTDIFF_HD inline
#endif
