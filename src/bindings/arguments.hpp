// What a call of a divergence is given, read without a word of Python: whatever is odd is not ours, and Python's to judge.
#pragma once
#include <Python.h>

#include <string>

#include "kldiv.h"

// The names of arguments, those of all functions.
enum Argument {
    kYTrue,
    kYPred,
    kAxis,
    kEpsilon,
    kBase,
    kReduction,
    kSampleWeight,
    kMask,
    kOut,
    kNumThreads,
    kBeta,  // of operations that have it
    kWrt,   // these two of a function that gives gradients
    kUpstream,
    kForm,  // these last, so that the others are found as soon as before
    kTemperature,
    kPseudocount,
    kWhere,
    kArguments
};

inline bool has_form(const kldiv_options &options, kldiv_form form) {
    return options.y_true_form == form || options.y_pred_form == form;
}
// Otherwise probabilities are made of rows, so that an element's part in its row hangs on the others.
inline bool are_probs(const kldiv_options &options) {
    return options.y_true_form == KLDIV_PROBS && options.y_pred_form == KLDIV_PROBS;
}

// What becomes of the rows' values.
enum class Reduction { kMean, kSum, kNone, kBatchMean, kMeanWithWeights };

// A function that users call: what it does, and the objects that it would otherwise look up at every call. It stands in
// the state of a module, which is what functions of C hang on (so pickle, repr and inspect take them for functions).
struct Function {
    kldiv_operation operation;
    bool has_gradients;
    kldiv_options defaults;             // of a call that names none
    PyObject *names[kArguments];        // interned; nullptr: not an argument of this function
    PyObject *reductions[6];            // interned, in the order of kReductions
    PyObject *forms[KLDIV_FORM_COUNT];  // interned, in the order of kldiv_form
    PyObject *float32, *float64;        // NumPy's dtypes
    PyObject *fallback;                 // takes whatever is not ours
    std::string name, doc;
    PyMethodDef method;

    // False, with an exception set: there is no memory.
    bool prepare(kldiv_operation its_operation, bool gradients, PyObject *its_fallback);
    void release();
};

// The arguments by name; nullptr: not given. All are borrowed.
struct Arguments {
    PyObject *values[kArguments] = {};

    PyObject *operator[](Argument name) const { return values[name]; }
    // Whether something other than None was given.
    bool has(Argument name) const { return values[name] != nullptr && values[name] != Py_None; }
};

// Below, false is: not ours. Nothing raises.

// From a vectorcall.
bool read_arguments(const Function &function, PyObject *const *args, Py_ssize_t positional, PyObject *keywords,
                    Arguments &arguments);
// epsilon, base, beta, num_threads, form, temperature and pseudocount.
bool read_options(const Function &function, const Arguments &arguments, kldiv_options &options);
bool read_reduction(const Function &function, const Arguments &arguments, Reduction &reduction);
// A float or an integer of Python's.
bool read_number(PyObject *object, double &value);

// Class axes of an array of `ndim`: one bit each.
bool read_axes(PyObject *axis, int ndim, uint64_t &classes);
