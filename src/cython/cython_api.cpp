// The functions that python/kldiv_fast/cython_api.pxd declares, over the same core and the same settings as the Python
// module's. Cython finds them in a dictionary `__pyx_capi__` and compares the C type that each capsule names with the
// one that the caller was compiled for, so no Cython is needed to build this, and a mismatch is an error at import.
#include "cython_api.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include "kldiv.h"

namespace py = pybind11;

namespace {

constexpr int kInvalid = 3;  // KL_INVALID of the .pxd; the rest are kldiv_status

template <class Real>
constexpr kldiv_dtype kDtype = KLDIV_FLOAT32;
template <>
constexpr kldiv_dtype kDtype<double> = KLDIV_FLOAT64;

// Whether each row's label is one of its classes, which the core relies on. Anything else may be any number.
bool are_in_range(const int64_t *labels, Py_ssize_t rows, Py_ssize_t classes) {
    return std::all_of(labels, labels + rows, [classes](int64_t label) { return label >= 0 && label < classes; });
}
template <class Real>
bool are_in_range(const Real *, Py_ssize_t, Py_ssize_t) {
    return true;
}

// kl as Keras has it, or of other forms. `parameter`: y_pred's, an epsilon or of logits a temperature.
kldiv_options options_of(kldiv_form y_true, kldiv_form y_pred, double parameter, int num_threads) {
    kldiv_options options = KLDIV_DEFAULTS;
    options.y_true_form = y_true;
    options.y_pred_form = y_pred;
    (y_pred == KLDIV_LOGITS ? options.temperature : options.epsilon) = parameter;
    options.num_threads = num_threads;
    return options;
}

bool is_valid(const kldiv_options &options, Py_ssize_t rows, Py_ssize_t classes) {
    constexpr Py_ssize_t most = std::numeric_limits<Py_ssize_t>::max() / static_cast<Py_ssize_t>(sizeof(double));
    return rows >= 0 && classes >= 0 && (classes == 0 || rows <= most / classes) && options.epsilon >= 0 &&
           options.epsilon < 1 && options.temperature > 0 && std::isfinite(options.temperature);
}

// y_true: rows of y_pred's form, or a label for each row.
template <kldiv_form form, class True, class Real>
int run(const True *y_true, const Real *y_pred, Py_ssize_t rows, Py_ssize_t classes, double parameter, int num_threads,
        const Real *upstream, Real *out, Real *grad_y_true, Real *grad_y_pred) {
    constexpr kldiv_form true_form = std::is_same_v<True, Real> ? form : KLDIV_LABELS;
    const kldiv_options options = options_of(true_form, form, parameter, num_threads);
    if (!is_valid(options, rows, classes) || !are_in_range(y_true, rows, classes)) return kInvalid;
    return kldiv_rows(&options, kDtype<Real>, y_true, y_pred, rows, classes, upstream, out, grad_y_true, grad_y_pred);
}

// ---- The functions ----

template <kldiv_form form, class True, class Real>
int rows(const True *y_true, const Real *y_pred, Py_ssize_t rows, Py_ssize_t classes, double parameter, int num_threads,
         Real *out) {
    return run<form, True, Real>(y_true, y_pred, rows, classes, parameter, num_threads, nullptr, out, nullptr, nullptr);
}

// Probabilities have a way without set-up: kldiv_flat.
template <class Real>
int row(const Real *y_true, const Real *y_pred, Py_ssize_t classes, double epsilon, int num_threads, Real *value) {
    const kldiv_options options = options_of(KLDIV_PROBS, KLDIV_PROBS, epsilon, num_threads);
    if (!is_valid(options, 1, classes)) return kInvalid;
    double total = 0;
    const kldiv_status status = kldiv_flat(&options, kDtype<Real>, y_true, y_pred, classes, &total);
    if (status == KLDIV_OK) *value = static_cast<Real>(total);
    return status;
}

template <class Real>
int logits_row(const Real *y_true, const Real *y_pred, Py_ssize_t classes, double temperature, int num_threads,
               Real *value) {
    return rows<KLDIV_LOGITS>(y_true, y_pred, 1, classes, temperature, num_threads, value);
}

template <kldiv_form form, class Real>
int labels_row(Py_ssize_t label, const Real *y_pred, Py_ssize_t classes, double parameter, int num_threads,
               Real *value) {
    const int64_t y_true = label;
    return rows<form>(&y_true, y_pred, 1, classes, parameter, num_threads, value);
}

template <kldiv_form form, class Real>
int labels_rows_grad(const int64_t *y_true, const Real *y_pred, Py_ssize_t rows, Py_ssize_t classes, double parameter,
                     int num_threads, const Real *upstream, Real *out, Real *grad_y_pred) {
    return run<form, int64_t, Real>(y_true, y_pred, rows, classes, parameter, num_threads, upstream, out, nullptr,
                                    grad_y_pred);
}

// ---- How Cython finds them: C types in its spelling ----

const char *name_of(int *) { return "int"; }
const char *name_of(double *) { return "double"; }
const char *name_of(Py_ssize_t *) { return "Py_ssize_t"; }
const char *name_of(float **) { return "float *"; }
const char *name_of(double **) { return "double *"; }
const char *name_of(const float **) { return "float const *"; }
const char *name_of(const double **) { return "double const *"; }
const char *name_of(const int64_t **) { return "int64_t const *"; }

template <class... Arguments>
std::string type_of(int (*)(Arguments...)) {
    std::string arguments;
    ((arguments += arguments.empty() ? "" : ", ", arguments += name_of(static_cast<Arguments *>(nullptr))), ...);
    return "int (" + arguments + ")";
}

template <class... Arguments>
void add(py::dict &functions, const std::string &name, int (*function)(Arguments...)) {
    // A capsule borrows its name: this one lives as long as the module, which is never unloaded.
    static const std::string type = type_of(function);
    functions[name.c_str()] = py::capsule(reinterpret_cast<void *>(function), type.c_str());
}

// What every form has.
template <kldiv_form form, class Real>
void add_rows(py::dict &functions, const std::string &name, const std::string &dtype) {
    add(functions, "kl_" + name + "rows_" + dtype, rows<form, Real, Real>);
    add(functions, "kl_" + name + "rows_grad_" + dtype, run<form, Real, Real>);
    add(functions, "kl_labels_" + name + "row_" + dtype, labels_row<form, Real>);
    add(functions, "kl_labels_" + name + "rows_" + dtype, rows<form, int64_t, Real>);
    add(functions, "kl_labels_" + name + "rows_grad_" + dtype, labels_rows_grad<form, Real>);
}

template <class Real>
void add_all(py::dict &functions, const std::string &dtype) {
    add(functions, "kl_row_" + dtype, row<Real>);
    add(functions, "kl_logits_row_" + dtype, logits_row<Real>);
    add_rows<KLDIV_PROBS, Real>(functions, "", dtype);
    add_rows<KLDIV_LOGITS, Real>(functions, "logits_", dtype);
}

}  // namespace

py::dict cython_api() {
    py::dict functions;
    add_all<float>(functions, "float32");
    add_all<double>(functions, "float64");
    return functions;
}
