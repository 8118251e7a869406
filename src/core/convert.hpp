// Reading what the kernels can't read in place, a block at a time. Included by kldiv.cpp.
#pragma once
#include "kldiv.h"

namespace kldiv {

int64_t item_size(kldiv_dtype dtype);

// n elements of `source.dtype` at src, `stride` bytes apart, into side-by-side float32 or float64 at dst.
void pack(const kldiv_array &source, const char *src, int64_t stride, int64_t n, kldiv_dtype to, void *dst);

}  // namespace kldiv
