// The table that the objects of fidelity_kernel.cpp export, one on each ISA. Included by them, by dispatch and by
// fidelity.cpp.
#pragma once
#include <cstdint>

#include "kldiv.h"

namespace kldiv {

// A row of a kldiv_logits: where its elements begin; and of codes what they stand for.
struct LogitsRow {
    const char *data;
    kldiv_dtype dtype;
    float scale, least;
};

// Of a row of logits: its maximum, and sum e^((x - high) / T). Of codes the maximum alone.
struct LogitsSum {
    double high, sum;
};

// Two rows, a and b, on one scale. With x = (a - b - center) / T, which is log p - log q where the center is that of both
// normalisers:     p = e^((a - high_a) / T)     q = e^((b - high_b + shift) / T) = p e^-x
struct OneScale {
    float high_a, high_b, shift, center, inverse_temperature;
    float least;  // sums of `forward` are over log p above it
};

struct FidelitySums {
    double forward;       // p x
    double psi;           // p (e^-x - 1 + x), never negative
    double back;          // q (e^x - 1 - x), never negative
    double jsd;           // (p log(2 p / (p + q)) + q log(2 q / (p + q))) / 2, never negative
    float high_x, low_x;  // where not near 0: infinite where one of the two has no probability
};

struct FidelityKernels {
    // n of a row's elements from `first` on as float32, and -inf up to the next multiple of 16: in place, or in `widened`,
    // which has room for a segment.
    const float *(*read)(const LogitsRow &, int64_t first, int64_t n, float *widened);
    // `maxima`: one for each segment.
    LogitsSum (*add_up)(const LogitsRow &, int64_t classes, float inverse_temperature, float *maxima);
    FidelitySums (*compare)(const LogitsRow &a, const LogitsRow &b, int64_t classes, const OneScale &);
};

}  // namespace kldiv
