// See weights.hpp.
#include "weights.hpp"

#include <algorithm>
#include <cmath>

namespace {

// Knuth's two-sum: what each addition rounds off is added up too.
struct ExactSum {
    double sum = 0, rest = 0;

    void add(double x) {
        const double next = sum + x, added = next - sum;
        rest += (sum - (next - added)) + (x - added);
        sum = next;
    }
    double value() const { return std::isfinite(sum) ? sum + rest : sum; }
};

// One axis that a weight and a mask share: how many elements, and the bytes between those of each.
struct Axis {
    int64_t extent, weight, mask;
};

// Calls visit(weight, mask) for each element of the axes' shape.
template <class Visit>
void walk(const Axis *axes, int ndim, const char *weight, const char *mask, const Visit &visit) {
    if (ndim == 0) return visit(weight, mask);
    for (int64_t i = 0; i < axes->extent; ++i)
        walk(axes + 1, ndim - 1, weight + i * axes->weight, mask + i * axes->mask, visit);
}

int64_t extent_along(const arrays::Fields &array, int axis) { return axis < 0 ? 1 : array.dimensions[axis]; }

// What is read along axis `i` of `ndim` of an array whose axes stand at their end; there may be no array.
void read_axis(const arrays::Fields *array, int i, int ndim, int64_t extent, int64_t &stride) {
    if (array != nullptr) arrays::read_stride(*array, i - (ndim - array->nd), extent, stride);
}

int64_t count(const arrays::Fields &mask, int axis, const char *at) {
    if (axis == mask.nd) return *at != 0;
    const int64_t extent = mask.dimensions[axis], stride = mask.strides[axis];
    int64_t found = 0;
    if (axis < mask.nd - 1) {
        for (int64_t i = 0; i < extent; ++i) found += count(mask, axis + 1, at + i * stride);
    } else if (stride == 1) {  // which compilers make vectors of
        for (int64_t i = 0; i < extent; ++i) found += at[i] != 0;
    } else {
        for (int64_t i = 0; i < extent; ++i) found += at[i * stride] != 0;
    }
    return found;
}

double weight_at(const char *at, bool is_float) {
    if (at == nullptr) return 1;
    if (!is_float) return *reinterpret_cast<const double *>(at);
    return static_cast<double>(*reinterpret_cast<const float *>(at));
}

}  // namespace

int64_t count_rows(const arrays::Fields &mask) { return count(mask, 0, mask.data); }

bool broadcast(const arrays::Fields *a, const arrays::Fields *b) {
    if (a == nullptr || b == nullptr) return true;
    for (int i = 1; i <= std::min(a->nd, b->nd); ++i) {
        const int64_t m = a->dimensions[a->nd - i], n = b->dimensions[b->nd - i];
        if (m != n && m != 1 && n != 1) return false;
    }
    return true;
}

double sum_of_weights(const arrays::Fields *weight, const arrays::Fields *mask) {
    const int ndim = std::max(weight == nullptr ? 0 : weight->nd, mask == nullptr ? 0 : mask->nd);
    Axis axes[arrays::kMaxAxes];
    for (int i = 0; i < ndim; ++i) {
        axes[i] = {1, 0, 0};
        for (const arrays::Fields *array : {weight, mask})
            if (array != nullptr)
                if (const int64_t extent = extent_along(*array, i - (ndim - array->nd)); extent != 1)
                    axes[i].extent = extent;
        read_axis(weight, i, ndim, axes[i].extent, axes[i].weight);
        read_axis(mask, i, ndim, axes[i].extent, axes[i].mask);
    }
    kldiv_dtype dtype = KLDIV_FLOAT64;
    if (weight != nullptr) arrays::read_wide_dtype(*weight, dtype);
    ExactSum total;
    walk(axes, ndim, weight == nullptr ? nullptr : weight->data, mask == nullptr ? nullptr : mask->data,
         [&](const char *w, const char *m) {
             if (m == nullptr || *m != 0) total.add(weight_at(w, dtype == KLDIV_FLOAT32));
         });
    return total.value();
}
