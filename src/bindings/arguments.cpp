// See arguments.hpp.
#include "arguments.hpp"

#include <climits>
#include <cmath>
#include <cstring>

#include "arrays.hpp"
#include "lists.hpp"

namespace {

constexpr const char *kNames[kArguments] = {
    "y_true",      "y_pred", "axis", "epsilon",  "base", "reduction",   "sample_weight", "mask", "out",
    "num_threads", "beta",   "wrt",  "upstream", "form", "temperature", "pseudocount",   "where"};

struct NamedReduction {
    const char *name;
    Reduction reduction;
};
constexpr NamedReduction kReductions[] = {
    {"mean", Reduction::kMean},           {"sum", Reduction::kSum},
    {"none", Reduction::kNone},           {"sum_over_batch_size", Reduction::kMean},
    {"batchmean", Reduction::kBatchMean}, {"mean_with_sample_weight", Reduction::kMeanWithWeights}};

bool read_integer(PyObject *object, long &value) {
    if (!PyLong_CheckExact(object)) return false;
    int overflow = 0;
    value = PyLong_AsLongAndOverflow(object, &overflow);
    return overflow == 0;
}

bool read_threads(PyObject *object, int &threads) {
    long value = 0;
    if (!read_integer(object, value) || value < 1 || value > INT_MAX) return false;
    threads = static_cast<int>(value);
    return true;
}

bool read_epsilon(PyObject *object, kldiv_options &options) {
    options.clip = object != Py_None;
    if (options.clip == 0) return true;
    return read_number(object, options.epsilon) && options.epsilon >= 0 && options.epsilon < 1;
}

bool read_base(PyObject *object, double &scale) {
    double base = 0;
    if (!read_number(object, base) || !(base > 0) || base == 1 || !std::isfinite(base)) return false;
    scale = 1 / std::log(base);
    return true;
}

bool read_form(const Function &function, PyObject *name, kldiv_form &form) {
    for (int i = 0; i < KLDIV_FORM_COUNT; ++i) {
        if (name != function.forms[i] || i == KLDIV_LABELS) continue;  // labels are Python's to look through
        form = static_cast<kldiv_form>(i);
        return true;
    }
    return false;
}

// One name for both inputs, or a pair of names.
bool read_forms(const Function &function, PyObject *given, kldiv_options &options) {
    if (!is_list(given)) {
        if (!read_form(function, given, options.y_true_form)) return false;
        options.y_pred_form = options.y_true_form;
        return true;
    }
    return PySequence_Fast_GET_SIZE(given) == 2 &&
           read_form(function, PySequence_Fast_GET_ITEM(given, 0), options.y_true_form) &&
           read_form(function, PySequence_Fast_GET_ITEM(given, 1), options.y_pred_form);
}

bool read_temperature(PyObject *object, double &temperature) {
    return read_number(object, temperature) && temperature > 0 && std::isfinite(temperature);
}

bool read_pseudocount(PyObject *object, double &pseudocount) {
    return read_number(object, pseudocount) && pseudocount >= 0 && std::isfinite(pseudocount);
}

// What is of logits or counts alone, and what is of probabilities.
bool fits_forms(const Function &function, const kldiv_options &options) {
    const kldiv_options &defaults = function.defaults;
    if (!has_form(options, KLDIV_LOGITS) && options.temperature != defaults.temperature) return false;
    if (!has_form(options, KLDIV_COUNTS) && options.pseudocount != defaults.pseudocount) return false;
    return are_probs(options) || options.clip == 0 || options.epsilon == defaults.epsilon;
}

bool read_axis(PyObject *object, int ndim, uint64_t &classes) {
    long axis = 0;
    if (!read_integer(object, axis) || axis < -ndim || axis >= ndim) return false;
    const uint64_t bit = uint64_t{1} << (axis < 0 ? axis + ndim : axis);
    if ((classes & bit) != 0) return false;  // named twice
    classes |= bit;
    return true;
}

bool takes(kldiv_operation operation, bool has_gradients, Argument name) {
    if (name == kBeta) return std::strcmp(kldiv_operation_parameters(operation), "beta") == 0;
    return has_gradients || (name != kWrt && name != kUpstream);
}

}  // namespace

bool Function::prepare(kldiv_operation its_operation, bool gradients, PyObject *its_fallback) {
    operation = its_operation;
    has_gradients = gradients;
    defaults = kldiv_options KLDIV_DEFAULTS;
    defaults.operation = its_operation;
    fallback = Py_NewRef(its_fallback);
    float32 = arrays::Numpy::get().PyArray_DescrFromType_(arrays::Numpy::NPY_FLOAT_);
    float64 = arrays::Numpy::get().PyArray_DescrFromType_(arrays::Numpy::NPY_DOUBLE_);
    for (int i = 0; i < kArguments; ++i) {
        if (!takes(operation, gradients, static_cast<Argument>(i))) continue;
        names[i] = PyUnicode_InternFromString(kNames[i]);
        if (names[i] == nullptr) return false;
    }
    for (size_t i = 0; i < std::size(kReductions); ++i) {
        reductions[i] = PyUnicode_InternFromString(kReductions[i].name);
        if (reductions[i] == nullptr) return false;
    }
    for (int i = 0; i < KLDIV_FORM_COUNT; ++i) {
        forms[i] = PyUnicode_InternFromString(kldiv_form_name(i));
        if (forms[i] == nullptr) return false;
    }
    return float32 != nullptr && float64 != nullptr;
}

void Function::release() {
    for (PyObject *&each : names) Py_CLEAR(each);
    for (PyObject *&each : reductions) Py_CLEAR(each);
    for (PyObject *&each : forms) Py_CLEAR(each);
    Py_CLEAR(float32);
    Py_CLEAR(float64);
    Py_CLEAR(fallback);
}

bool read_arguments(const Function &function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords,
                    Arguments &arguments) {
    if (positional > 2) return false;
    for (Py_ssize_t i = 0; i < positional; ++i) arguments.values[i] = args[i];
    const Py_ssize_t count = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t i = 0; i < count; ++i) {
        // Names are interned wherever a call is written out, and compared as pointers.
        PyObject *name = PyTuple_GET_ITEM(keywords, i);
        int at = 0;
        while (at < kArguments && function.names[at] != name) ++at;
        if (at == kArguments || arguments.values[at] != nullptr) return false;
        arguments.values[at] = args[positional + i];
    }
    return arguments[kYTrue] != nullptr && arguments[kYPred] != nullptr;
}

bool read_number(PyObject *object, double &value) {
    if (PyFloat_Check(object)) {
        value = PyFloat_AS_DOUBLE(object);
        return true;
    }
    if (!PyLong_CheckExact(object)) return false;
    value = PyLong_AsDouble(object);
    if (value != -1 || PyErr_Occurred() == nullptr) return true;
    PyErr_Clear();
    return false;
}

bool read_options(const Function &function, const Arguments &arguments, kldiv_options &options) {
    if (PyObject *epsilon = arguments[kEpsilon]; epsilon != nullptr && !read_epsilon(epsilon, options)) return false;
    if (arguments.has(kBase) && !read_base(arguments[kBase], options.scale)) return false;
    if (PyObject *beta = arguments[kBeta]; beta != nullptr)
        if (!read_number(beta, options.beta) || !(options.beta >= 0 && options.beta <= 1)) return false;
    if (arguments.has(kNumThreads) && !read_threads(arguments[kNumThreads], options.num_threads)) return false;
    PyObject *form = arguments[kForm], *temperature = arguments[kTemperature], *pseudocount = arguments[kPseudocount];
    if (form == nullptr && temperature == nullptr && pseudocount == nullptr) return true;
    if (form != nullptr && !read_forms(function, form, options)) return false;
    if (temperature != nullptr && !read_temperature(temperature, options.temperature)) return false;
    if (pseudocount != nullptr && !read_pseudocount(pseudocount, options.pseudocount)) return false;
    return fits_forms(function, options);
}

bool read_reduction(const Function &function, const Arguments &arguments, Reduction &reduction) {
    PyObject *given = arguments[kReduction];
    if (given == nullptr) return true;
    if (given == Py_None) {
        reduction = Reduction::kNone;
        return true;
    }
    for (size_t i = 0; i < std::size(kReductions); ++i) {
        if (given != function.reductions[i]) continue;
        reduction = kReductions[i].reduction;
        return true;
    }
    return false;
}

bool read_axes(PyObject *axis, int ndim, uint64_t &classes) {
    classes = 0;
    if (axis == nullptr) {
        classes = uint64_t{1} << (ndim - 1);
        return true;
    }
    if (!PyTuple_CheckExact(axis)) return read_axis(axis, ndim, classes);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(axis); ++i)
        if (!read_axis(PyTuple_GET_ITEM(axis, i), ndim, classes)) return false;
    return classes != 0;
}
