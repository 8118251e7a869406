// Blocks of pairs: each of a few rows of the left side beside each of two vectors' rows of the right one, whose elements of
// one class lie side by side. A pair's sum is carried in a lane of its own, class by class: it has the same bits whatever
// the lanes, and the blocks, are. Included by pair_kernel.cpp alone.
#pragma once
#include "../kernel.hpp"
#include "../math/log.hpp"
#include "../pair_kernel.hpp"

namespace kldiv {
namespace {

// ---- What is made of a row's elements ----

template <class V>
struct Preparer {
    using Element = typename V::Element;
    Prepared as;
    V added, low, high, weight;

    explicit Preparer(const Preparation &given)
        : as(given.as),
          added(splat(given.added)),
          low(splat(given.low)),
          high(splat(given.high)),
          weight(splat(given.weight)) {}

    // Of x times the scale no rounding is left: a small difference from the center would be made of it.
    V operator()(V x, V scale, V center) const {
        x = V::add(x, added);
        const V product = V::mul(x, scale), zero = V::splat(0);
        const V probability = V::clip(product, low, high);
        const auto is_product = V::equal(probability, product);
        if (as == Prepared::log) {
            const V rest = V::div(V::fma(x, scale, V::sub(zero, product)), product);
            return V::add(any_log_ratio(probability, center), V::select(is_product, rest, zero));
        }
        const V exact = V::fma(x, scale, V::sub(zero, center));
        const V difference = V::select(is_product, exact, V::sub(probability, center));
        return as == Prepared::difference ? difference : V::div(V::mul(weight, difference), center);
    }
    static V splat(double x) { return V::splat(static_cast<Element>(x)); }
};

template <class V>
void prepare_left(const Preparation &how, void *data, int64_t n, int64_t classes, const double *scales,
                  const void *center) {
    const Preparer<V> prepare(how);
    auto *row = static_cast<typename V::Element *>(data);
    for (int64_t i = 0; i < n; ++i, row += kPairClasses) {
        const V scale = Preparer<V>::splat(scales[i]);
        for (int64_t k = 0; k < classes; k += V::lanes) {  // rows have room for whole vectors
            const auto at = static_cast<const typename V::Element *>(center) + k;
            const int left = classes - k < V::lanes ? static_cast<int>(classes - k) : V::lanes;
            const V c = V::load_partial(reinterpret_cast<const char *>(at), left);
            prepare(V::load(reinterpret_cast<const char *>(row + k)), scale, c).store(row + k);
        }
    }
}

template <class V>
void prepare_right(const Preparation &how, void *data, int64_t classes, const double *scales, const void *center) {
    using Element = typename V::Element;
    const Preparer<V> prepare(how);
    Element scale[2 * V::lanes];
    for (int j = 0; j < 2 * V::lanes; ++j) scale[j] = static_cast<Element>(scales[j]);
    auto *x = static_cast<Element *>(data);
    for (int64_t k = 0; k < classes; ++k) {
        const V c = V::splat(static_cast<const Element *>(center)[k]);
        for (int j = 0; j < 2 * V::lanes; j += V::lanes, x += V::lanes)
            prepare(V::load(reinterpret_cast<const char *>(x)), V::load(reinterpret_cast<const char *>(scale + j)), c)
                .store(x);
    }
}

// ---- Pairs ----

struct Product {
    template <class V>
    static KLDIV_INLINE V add(V sum, V a, V b, V) {
        return V::fma(a, b, sum);
    }
};

struct Mixture {
    template <class V>
    static KLDIV_INLINE V add(V sum, V a, V b, V center) {
        const V y = V::add(a, b), x = V::add(V::splat(1), y);
        return V::fma(V::mul(center, x), log_of(x, y), sum);
    }
};

// The sums of so many rows beside two vectors. Recursive, so that each is a register of its own.
template <class V, class Pair, int Rows>
struct PairSums {
    using Element = typename V::Element;
    V first = V::splat(0), second = V::splat(0);
    PairSums<V, Pair, Rows - 1> rest;

    KLDIV_INLINE void add(const Element *left, V b0, V b1, V center) {
        const V a = V::splat(*left);
        first = Pair::add(first, a, b0, center);
        second = Pair::add(second, a, b1, center);
        rest.add(left + kPairClasses, b0, b1, center);
    }
    KLDIV_INLINE void add_to(double *sums, int64_t stride) const {
        first.add_to(sums);
        second.add_to(sums + V::lanes);
        rest.add_to(sums + stride, stride);
    }
};

template <class V, class Pair>
struct PairSums<V, Pair, 0> {
    KLDIV_INLINE void add(const typename V::Element *, V, V, V) {}
    KLDIV_INLINE void add_to(double *, int64_t) const {}
};

// Rows are taken `Together`: as many as there are registers for.
template <class V, class Pair, int Rows, int Together>
void add_pairs(const void *left, const void *right, const void *center, int64_t classes, double *sums, int64_t stride) {
    using Element = typename V::Element;
    const auto *a = static_cast<const Element *>(left);
    for (int i = 0; i < Rows; i += Together, a += Together * kPairClasses, sums += Together * stride) {
        const auto *b = static_cast<const Element *>(right);
        PairSums<V, Pair, Together> block;
        for (int64_t k = 0; k < classes; ++k, b += 2 * V::lanes)
            block.add(a + k, V::load(reinterpret_cast<const char *>(b)),
                      V::load(reinterpret_cast<const char *>(b + V::lanes)),
                      V::splat(static_cast<const Element *>(center)[k]));
        block.add_to(sums, stride);
    }
}

}  // namespace
}  // namespace kldiv
