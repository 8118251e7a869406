// The functions that python/kldiv_fast/cython_api.pxd declares, over the same core and the same settings as the Python
// module's. Cython finds them in a dictionary `__pyx_capi__` and compares the C type that each capsule names with the
// one that the caller was compiled for, so no Cython is needed to build this, and a mismatch is an error at import.
#include "cython_api.hpp"

#include <cstdint>
#include <limits>
#include <string>

#include "kldiv.h"

namespace py = pybind11;

namespace {

constexpr int kInvalid = 3;  // KL_INVALID of the .pxd; the rest are kldiv_status

template <class Real>
constexpr kldiv_dtype kDtype = KLDIV_FLOAT32;
template <>
constexpr kldiv_dtype kDtype<double> = KLDIV_FLOAT64;

bool is_valid(Py_ssize_t rows, Py_ssize_t classes, double epsilon) {
    constexpr Py_ssize_t most = std::numeric_limits<Py_ssize_t>::max() / static_cast<Py_ssize_t>(sizeof(double));
    return rows >= 0 && classes >= 0 && (classes == 0 || rows <= most / classes) && epsilon >= 0 && epsilon < 1;
}

// kl, as Keras has it.
kldiv_options options_of(double epsilon, int num_threads) {
    kldiv_options options = KLDIV_DEFAULTS;
    options.epsilon = epsilon;
    options.num_threads = num_threads;
    return options;
}

template <class Real>
int row(const Real *y_true, const Real *y_pred, Py_ssize_t classes, double epsilon, int num_threads, Real *value) {
    if (!is_valid(1, classes, epsilon)) return kInvalid;
    double total = 0;
    const kldiv_options options = options_of(epsilon, num_threads);
    const kldiv_status status = kldiv_flat(&options, kDtype<Real>, y_true, y_pred, classes, &total);
    if (status == KLDIV_OK) *value = static_cast<Real>(total);
    return status;
}

template <class Real>
int rows_grad(const Real *y_true, const Real *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon,
              int num_threads, const Real *upstream, Real *out, Real *grad_y_true, Real *grad_y_pred) {
    if (!is_valid(rows, classes, epsilon)) return kInvalid;
    const kldiv_options options = options_of(epsilon, num_threads);
    return kldiv_rows(&options, kDtype<Real>, y_true, y_pred, rows, classes, upstream, out, grad_y_true, grad_y_pred);
}

template <class Real>
int rows(const Real *y_true, const Real *y_pred, Py_ssize_t rows, Py_ssize_t classes, double epsilon, int num_threads,
         Real *out) {
    return rows_grad<Real>(y_true, y_pred, rows, classes, epsilon, num_threads, nullptr, out, nullptr, nullptr);
}

// C types in Cython's spelling.
const char *name_of(int *) { return "int"; }
const char *name_of(double *) { return "double"; }
const char *name_of(Py_ssize_t *) { return "Py_ssize_t"; }
const char *name_of(float **) { return "float *"; }
const char *name_of(double **) { return "double *"; }
const char *name_of(const float **) { return "float const *"; }
const char *name_of(const double **) { return "double const *"; }

template <class... Arguments>
std::string type_of(int (*)(Arguments...)) {
    std::string arguments;
    ((arguments += arguments.empty() ? "" : ", ", arguments += name_of(static_cast<Arguments *>(nullptr))), ...);
    return "int (" + arguments + ")";
}

template <class... Arguments>
void add(py::dict &functions, const char *name, int (*function)(Arguments...)) {
    // A capsule borrows its name: this one lives as long as the module, which is never unloaded.
    static const std::string type = type_of(function);
    functions[name] = py::capsule(reinterpret_cast<void *>(function), type.c_str());
}

}  // namespace

py::dict cython_api() {
    py::dict functions;
    add(functions, "kl_row_float32", row<float>);
    add(functions, "kl_row_float64", row<double>);
    add(functions, "kl_rows_float32", rows<float>);
    add(functions, "kl_rows_float64", rows<double>);
    add(functions, "kl_rows_grad_float32", rows_grad<float>);
    add(functions, "kl_rows_grad_float64", rows_grad<double>);
    return functions;
}
