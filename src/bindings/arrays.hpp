// ndarrays as the core's operands: NumPy's own fields, read without a call of NumPy's and without its headers.
#pragma once
#include <pybind11/numpy.h>

#include <cstdint>
#include <cstring>

#include "kldiv.h"

namespace arrays {

using Fields = pybind11::detail::PyArray_Proxy;
using Numpy = pybind11::detail::npy_api;

// What pybind11 has no names for.
constexpr int kHalf = 23;        // NPY_HALF
constexpr int kUserTypes = 256;  // NPY_USERDEF: the numbers of other libraries' types begin here
constexpr int kMaxAxes = 64;     // NPY_MAXDIMS, since NumPy 2
static_assert(kMaxAxes <= KLDIV_MAX_AXES, "an array may have more axes than the core takes");

inline const Fields &fields(PyObject *array) { return *pybind11::detail::array_proxy(array); }

inline bool has_flags(const Fields &array, int flags) { return (array.flags & flags) == flags; }

// An ndarray, of no subclass: those may mean something else by their elements.
inline bool is_array(PyObject *object) { return Py_TYPE(object) == Numpy::get().PyArray_Type_; }

inline int type_number(const Fields &array) { return pybind11::detail::array_descriptor_proxy(array.descr)->type_num; }

inline bool is_native(const Fields &array) {
    const uint16_t probe = 1;
    const bool little = *reinterpret_cast<const unsigned char *>(&probe) == 1;
    return pybind11::detail::array_descriptor_proxy(array.descr)->byteorder != (little ? '>' : '<');
}

// ml_dtypes' bfloat16, by the name of its scalars' class: every extension module that registers one has its own number.
inline bool is_bfloat16(const Fields &array) {
    const auto *descr = pybind11::detail::array_descriptor_proxy(array.descr);
    if (descr->type_num < kUserTypes) return false;
    const char *name = reinterpret_cast<PyTypeObject *>(descr->typeobj)->tp_name;
    const char *dot = std::strrchr(name, '.');
    return std::strcmp(dot == nullptr ? name : dot + 1, "bfloat16") == 0;
}

// Whether the kernels read these elements in place: aligned, native, and of one of the four dtypes.
inline bool read_kernel_dtype(const Fields &array, kldiv_dtype &dtype) {
    switch (type_number(array)) {
        case Numpy::NPY_FLOAT_: dtype = KLDIV_FLOAT32; break;
        case Numpy::NPY_DOUBLE_: dtype = KLDIV_FLOAT64; break;
        case kHalf: dtype = KLDIV_FLOAT16; break;
        default:
            if (!is_bfloat16(array)) return false;
            dtype = KLDIV_BFLOAT16;
    }
    return has_flags(array, Numpy::NPY_ARRAY_ALIGNED_) && is_native(array);
}

// float32 or float64: what weights, factors and results are of.
inline bool read_wide_dtype(const Fields &array, kldiv_dtype &dtype) {
    return read_kernel_dtype(array, dtype) && (dtype == KLDIV_FLOAT32 || dtype == KLDIV_FLOAT64);
}

inline bool is_mask(const Fields &array) { return type_number(array) == Numpy::NPY_BOOL_; }

inline bool has_shape_of(const Fields &array, const Fields &other) {
    if (array.nd != other.nd) return false;
    for (int i = 0; i < array.nd; ++i)
        if (array.dimensions[i] != other.dimensions[i]) return false;
    return true;
}

// Bytes from one element to the next along the array's own axis (below 0: it has none), which stands for `extent`
// elements; 0 where it is broadcast. False: it does not broadcast.
inline bool read_stride(const Fields &array, int axis, int64_t extent, int64_t &stride) {
    stride = 0;
    if (axis < 0 || array.dimensions[axis] == 1) return true;
    stride = array.strides[axis];
    return array.dimensions[axis] == extent;
}

// The bytes that an array's elements lie in, from the first to behind the last. (NumPy 2 is required: its descriptor.)
struct Extent {
    const char *first, *last;

    explicit Extent(const Fields &array) : first(array.data), last(array.data) {
        for (int i = 0; i < array.nd; ++i) {
            if (array.dimensions[i] == 0) {
                first = last = array.data;
                return;
            }
            (array.strides[i] < 0 ? first : last) += (array.dimensions[i] - 1) * array.strides[i];
        }
        last += pybind11::detail::array_descriptor2_proxy(array.descr)->elsize;
    }
    bool overlaps(const Extent &other) const { return first < other.last && other.first < last; }
};

// Whether an array has an element for each of its indices, as far as its strides tell.
inline bool repeats_elements(const Fields &array) {
    for (int i = 0; i < array.nd; ++i)
        if (array.strides[i] == 0 && array.dimensions[i] > 1) return true;
    return false;
}

inline bool is_writable(const Fields &array) {
    return has_flags(array, Numpy::NPY_ARRAY_WRITEABLE_) && !repeats_elements(array);
}

// New arrays; nullptr with an exception set where there is no memory. `descr` is borrowed.
inline PyObject *empty(PyObject *descr, int ndim, const Py_intptr_t *shape, const Py_intptr_t *strides = nullptr) {
    const Numpy &numpy = Numpy::get();
    Py_INCREF(descr);
    return numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, descr, ndim, shape, strides, nullptr, 0, nullptr);
}

// np.empty_like: of the same shape, its axes one within the other as in `like`.
inline PyObject *empty_like(const Fields &like, PyObject *descr, int64_t item_size) {
    if (has_flags(like, Numpy::NPY_ARRAY_C_CONTIGUOUS_)) return empty(descr, like.nd, like.dimensions);
    int order[kMaxAxes] = {};  // the axes, the outermost first
    const auto size = [&](int axis) { return like.strides[axis] < 0 ? -like.strides[axis] : like.strides[axis]; };
    for (int i = 0; i < like.nd; ++i) {
        int at = i;
        for (; at > 0 && size(order[at - 1]) < size(i); --at) order[at] = order[at - 1];
        order[at] = i;
    }
    Py_intptr_t strides[kMaxAxes];
    Py_intptr_t bytes = static_cast<Py_intptr_t>(item_size);
    for (int i = like.nd - 1; i >= 0; --i) {
        strides[order[i]] = bytes;
        if (like.dimensions[order[i]] > 1) bytes *= like.dimensions[order[i]];
    }
    return empty(descr, like.nd, like.dimensions, strides);
}

}  // namespace arrays
