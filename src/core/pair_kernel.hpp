// The table that the objects of pair_kernel.cpp export, one on each ISA. Included by them, by dispatch and by pairs.cpp.
#pragma once
#include <cstdint>

#include "kldiv.h"

namespace kldiv {

// What is made of a probability x beside the center's, c, before rows meet in pairs.
enum class Prepared {
    difference,  // x - c
    log,         // log(x / c)
    share,       // weight (x - c) / c
};

// What two rows' prepared numbers, a and b, add to their pair's sum.
enum class Paired {
    product,  // a b
    mixture,  // c x log x with x = 1 + a + b
};
constexpr int kPaired = 2;

// How a row's elements become probabilities: clip((x + added) * its scale, low, high); and the weight of its side.
struct Preparation {
    Prepared as;
    double added, low, high, weight;
};

// The classes that are read at a time. That many rows of one side stay in the first-level cache.
constexpr int64_t kPairClasses = 256;

// For kernels in float32 or float64, in which all elements and centers are.
struct PairFunctions {
    int64_t left, right;  // so many rows of one side are taken beside so many of the other
    // x: n rows of kPairClasses elements, of which the first `classes` are prepared in place.
    void (*prepare_left)(const Preparation &, void *x, int64_t n, int64_t classes, const double *scales,
                         const void *center);
    // x: `classes` times the elements of `right` rows side by side.
    void (*prepare_right)(const Preparation &, void *x, int64_t classes, const double *scales, const void *center);
    // sums[i * stride + j] += the sum over the classes, of `left` rows i and `right` rows j as prepared.
    void (*add[kPaired])(const void *left, const void *right, const void *center, int64_t classes, double *sums,
                         int64_t stride);
};

struct PairKernels {
    PairFunctions float32, float64;
};

}  // namespace kldiv
