// The wall between Python and the core: arrays in, values out, nothing is computed here. Python
// (python/kldiv_fast/_kl.py) coerces and words the errors; this file checks again every fact that memory safety rests on.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <climits>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "cython/cython_api.hpp"
#include "interrupt.hpp"
#include "kldiv.h"
#include "runtime.hpp"
#include "xla.hpp"

namespace py = pybind11;

namespace {

// Below this many elements (some 4 us of work) handing the GIL over costs more than it gives.
constexpr int64_t kReleaseGil = int64_t{1} << 15;

kldiv_dtype dtype_of(const py::dtype &dtype) {
    const char kind = dtype.kind();
    const auto size = dtype.itemsize();
    if (kind == 'f' && size == 4) return KLDIV_FLOAT32;
    if (kind == 'f' && size == 8) return KLDIV_FLOAT64;
    if (kind == 'f' && size == 2) return KLDIV_FLOAT16;
    if (kind == 'b') return KLDIV_BOOL;
    if (kind == 'i' || kind == 'u') {
        const bool is_unsigned = kind == 'u';
        if (size == 1) return is_unsigned ? KLDIV_UINT8 : KLDIV_INT8;
        if (size == 2) return is_unsigned ? KLDIV_UINT16 : KLDIV_INT16;
        if (size == 4) return is_unsigned ? KLDIV_UINT32 : KLDIV_INT32;
        if (size == 8) return is_unsigned ? KLDIV_UINT64 : KLDIV_INT64;
    }
    if (size == 2 && dtype.attr("name").cast<std::string>() == "bfloat16") return KLDIV_BFLOAT16;
    throw py::type_error("dtype " + py::str(dtype).cast<std::string>() + " is not one that the core reads");
}

bool is_foreign(const py::dtype &dtype) {
    const char order = dtype.byteorder();
    const uint16_t probe = 1;
    const bool little = *reinterpret_cast<const unsigned char *>(&probe) == 1;
    return order == (little ? '>' : '<');
}

kldiv_array describe(const py::array &array) {
    const py::dtype dtype = array.dtype();
    return {array.data(), dtype_of(dtype), is_foreign(dtype)};
}

// Bytes from one element to the next along an axis of `shape`, the array's axes standing at its end; 0: broadcast.
int64_t stride_along(const py::array &array, int axis, int ndim, int64_t extent, const char *name) {
    const int own = axis - (ndim - static_cast<int>(array.ndim()));
    if (own < 0) return 0;
    if (array.shape(own) == extent) return extent == 1 ? 0 : array.strides(own);
    if (array.shape(own) != 1) throw py::value_error(std::string(name) + " does not broadcast with the other arrays");
    return 0;
}

void require_rank(const py::array &array, int most, const char *name) {
    if (array.ndim() > most) throw py::value_error(std::string(name) + " has too many axes");
}

bool is_plain_float(const py::array &array) {
    const py::dtype dtype = array.dtype();
    return dtype.kind() == 'f' && (dtype.itemsize() == 4 || dtype.itemsize() == 8) && !is_foreign(dtype) &&
           py::detail::check_flags(array.ptr(), py::detail::npy_api::NPY_ARRAY_ALIGNED_);
}

void raise_status(kldiv_status status) {
    if (status == KLDIV_INTERRUPTED) throw py::error_already_set();
    if (status == KLDIV_NO_MEMORY) throw std::bad_alloc();
}

// call(poll, poll_data), without the GIL where the work is worth handing it over.
template <class Call>
kldiv_status call_core(int64_t elements, const Call &call, PyObject *progress = nullptr) {
    return elements < kReleaseGil ? call(nullptr, nullptr) : without_gil(call, progress);
}

// A gradient needs an element of its own for each of the loop nest's.
void *gradient_target(std::optional<py::array> &grad, int ndim, const char *name) {
    if (!grad) return nullptr;
    if (!is_plain_float(*grad)) throw py::type_error(std::string(name) + " must be float32 or float64");
    if (grad->ndim() != ndim) throw py::value_error(std::string(name) + " has the wrong number of axes");
    return grad->mutable_data();
}

int64_t gradient_stride(const py::array &grad, int axis, int64_t extent, const char *name) {
    if (grad.shape(axis) != extent) throw py::value_error(std::string(name) + " has the wrong shape");
    return grad.strides(axis);
}

// y_true and y_pred: of one rank, batch axes first, then class_ndim class axes. batch_shape: of the rows, after
// broadcasting with weight and mask. `progress` is called now and then with the part that is done, on the main thread.
// Returns the sum of the rows, or None with `out`.
py::object run(const py::array &y_true, const py::array &y_pred, int class_ndim, const py::tuple &batch_shape,
               const std::optional<py::array> &weight, const std::optional<py::array> &mask,
               std::optional<py::array> out, std::optional<double> epsilon, int num_threads,
               const std::optional<py::array> &upstream, std::optional<py::array> grad_y_true,
               std::optional<py::array> grad_y_pred, const std::optional<py::function> &progress) {
    const int batch_ndim = static_cast<int>(batch_shape.size());
    const int ndim = batch_ndim + class_ndim;
    if (class_ndim < 0 || ndim > KLDIV_MAX_AXES) throw py::value_error("too many axes");
    if (y_true.ndim() < class_ndim || y_pred.ndim() < class_ndim) throw py::value_error("too few axes");
    require_rank(y_true, ndim, "y_true");
    require_rank(y_pred, ndim, "y_pred");

    kldiv_problem problem{};
    problem.batch_ndim = batch_ndim;
    problem.class_ndim = class_ndim;
    problem.y_true = describe(y_true);
    problem.y_pred = describe(y_pred);
    problem.clip = epsilon.has_value();
    problem.epsilon = epsilon.value_or(0);
    if (!(problem.epsilon >= 0 && problem.epsilon < 1)) throw py::value_error("epsilon must lie in [0, 1)");
    problem.num_threads = num_threads;

    int64_t elements = 1;
    for (int i = 0; i < ndim; ++i) {
        kldiv_axis &axis = i < batch_ndim ? problem.batch[i] : problem.classes[i - batch_ndim];
        axis.extent = i < batch_ndim ? batch_shape[i].cast<int64_t>()
                                     : std::max<int64_t>(y_true.shape(y_true.ndim() - ndim + i),
                                                         y_pred.shape(y_pred.ndim() - ndim + i));
        if (i >= batch_ndim &&
            (y_true.shape(y_true.ndim() - ndim + i) == 0 || y_pred.shape(y_pred.ndim() - ndim + i) == 0))
            axis.extent = 0;
        axis.y_true = stride_along(y_true, i, ndim, axis.extent, "y_true");
        axis.y_pred = stride_along(y_pred, i, ndim, axis.extent, "y_pred");
        if (axis.extent < 0 || (axis.extent != 0 && elements > INT64_MAX / axis.extent))
            throw py::value_error("too many elements");
        elements *= axis.extent;
    }
    if (weight) {
        require_rank(*weight, batch_ndim, "sample_weight");
        if (!is_plain_float(*weight)) throw py::type_error("sample_weight must be float32 or float64");
        problem.weight = describe(*weight);
    }
    if (mask) {
        require_rank(*mask, batch_ndim, "mask");
        if (mask->dtype().kind() != 'b') throw py::type_error("mask must be bool");
        problem.mask = static_cast<const uint8_t *>(mask->data());
    }
    if (out) {
        if (!is_plain_float(*out)) throw py::type_error("out must be float32 or float64");
        if (out->ndim() != batch_ndim) throw py::value_error("out has the wrong number of axes");
        problem.out = out->mutable_data();
        problem.out_dtype = describe(*out).dtype;
    }
    problem.grad_y_true = gradient_target(grad_y_true, ndim, "grad_y_true");
    problem.grad_y_pred = gradient_target(grad_y_pred, ndim, "grad_y_pred");
    if (grad_y_true || grad_y_pred) problem.grad_dtype = describe(grad_y_true ? *grad_y_true : *grad_y_pred).dtype;
    if (grad_y_true && grad_y_pred && describe(*grad_y_pred).dtype != problem.grad_dtype)
        throw py::type_error("grad_y_true and grad_y_pred must be of one dtype");
    for (int i = 0; i < ndim; ++i) {
        kldiv_axis &axis = i < batch_ndim ? problem.batch[i] : problem.classes[i - batch_ndim];
        if (grad_y_true) axis.grad_y_true = gradient_stride(*grad_y_true, i, axis.extent, "grad_y_true");
        if (grad_y_pred) axis.grad_y_pred = gradient_stride(*grad_y_pred, i, axis.extent, "grad_y_pred");
    }
    if (upstream) {
        require_rank(*upstream, batch_ndim, "upstream");
        if (!is_plain_float(*upstream)) throw py::type_error("upstream must be float32 or float64");
        problem.upstream = describe(*upstream);
    }
    for (int i = 0; i < batch_ndim; ++i) {
        kldiv_axis &axis = problem.batch[i];
        if (upstream) axis.upstream = stride_along(*upstream, i, batch_ndim, axis.extent, "upstream");
        if (weight) axis.weight = stride_along(*weight, i, batch_ndim, axis.extent, "sample_weight");
        if (mask) axis.mask = stride_along(*mask, i, batch_ndim, axis.extent, "mask");
        if (out) {
            if (out->shape(i) != axis.extent) throw py::value_error("out has the wrong shape");
            axis.out = out->strides(i);
        }
    }

    double total = 0;
    const auto call = [&](CorePoll poll, void *poll_data) {
        kldiv_problem polled = problem;
        polled.poll = poll;
        polled.poll_data = poll_data;
        return kldiv_run(&polled, &total);
    };
    raise_status(call_core(elements, call, progress ? progress->ptr() : nullptr));
    return out ? py::object(py::none()) : py::object(py::float_(total));
}

// ---- The adapters' way in: contiguous rows of another framework's tensors, by address ----

kldiv_dtype dtype_named(const std::string &name) {
    constexpr const char *names[] = {"float32", "float64", "float16", "bfloat16"};  // in the order of kldiv_dtype
    for (int i = 0; i < 4; ++i)
        if (name == names[i]) return static_cast<kldiv_dtype>(i);
    throw py::type_error("dtype is " + name + "; expected float32, float64, float16 or bfloat16");
}

// kldiv_rows; an epsilon of None is no clip, an address of 0 a null pointer. The caller vouches for the others.
void rows(const std::string &dtype, uintptr_t y_true, uintptr_t y_pred, int64_t n, int64_t classes,
          std::optional<double> epsilon, uintptr_t upstream, int num_threads, uintptr_t out, uintptr_t grad_y_true,
          uintptr_t grad_y_pred) {
    const kldiv_dtype kind = dtype_named(dtype);
    const auto at = [](uintptr_t address) { return reinterpret_cast<void *>(address); };
    raise_status(call_core(n * classes, [&](CorePoll poll, void *poll_data) {
        return kldiv_rows(kind, at(y_true), at(y_pred), n, classes, epsilon.has_value(), epsilon.value_or(0),
                          at(upstream), num_threads, poll, poll_data, at(out), at(grad_y_true), at(grad_y_pred));
    }));
}

// ---- The fast path: two plain arrays and, perhaps, plain keywords. Everything else goes to Python, untouched. ----

PyObject *general;  // kldiv_fast._kl.kl
PyObject *name_axis, *name_epsilon, *name_reduction, *name_sample_weight, *name_mask, *name_out, *name_num_threads;
PyObject *value_mean, *value_sum, *value_sum_over_batch_size;

struct Options {
    double epsilon = 1e-7;
    bool mean = true;
    int num_threads = 0;
};

// False: not a plain keyword. Nothing here may raise: what is odd is for Python to judge.
bool read_keyword(PyObject *name, PyObject *value, int ndim, Options &options) {
    if (name == name_reduction) {
        options.mean = value != value_sum;
        return value == value_mean || value == value_sum || value == value_sum_over_batch_size;
    }
    if (name == name_axis) {
        if (!PyLong_CheckExact(value)) return false;
        int overflow = 0;
        const long axis = PyLong_AsLongAndOverflow(value, &overflow);
        return overflow == 0 && (axis == -1 || axis == ndim - 1);
    }
    if (name == name_epsilon) {
        if (!PyFloat_CheckExact(value)) return false;
        options.epsilon = PyFloat_AS_DOUBLE(value);
        return options.epsilon >= 0 && options.epsilon < 1;
    }
    if (name == name_num_threads) {
        if (value == Py_None) return true;
        if (!PyLong_CheckExact(value)) return false;
        int overflow = 0;
        const long threads = PyLong_AsLongAndOverflow(value, &overflow);
        options.num_threads = static_cast<int>(threads);
        return overflow == 0 && threads >= 1 && threads <= INT_MAX;
    }
    return (name == name_sample_weight || name == name_mask || name == name_out) && value == Py_None;
}

bool is_plain_array(PyObject *object) {
    constexpr int flags = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    return Py_TYPE(object) == py::detail::npy_api::get().PyArray_Type_ && py::detail::check_flags(object, flags);
}

PyObject *scalar(double value, bool is_float) {
    if (is_float) return py::cast(py::numpy_scalar<float>(static_cast<float>(value))).release().ptr();
    return py::cast(py::numpy_scalar<double>(value)).release().ptr();
}

// The result, or nullptr without an exception when the call is not plain, with one when it failed.
PyObject *try_plain(PyObject *const *args, Py_ssize_t positional, PyObject *keywords) {
    if (positional != 2 || !is_plain_array(args[0]) || !is_plain_array(args[1])) return nullptr;
    const auto t = py::reinterpret_borrow<py::array>(args[0]);
    const auto p = py::reinterpret_borrow<py::array>(args[1]);
    const py::dtype dtype = t.dtype();
    const int num = dtype.num();
    const bool is_float = num == py::detail::npy_api::NPY_FLOAT_;
    if (!is_float && num != py::detail::npy_api::NPY_DOUBLE_) return nullptr;
    const int ndim = static_cast<int>(t.ndim());
    if (p.dtype().num() != num || is_foreign(dtype) || is_foreign(p.dtype()) || ndim == 0 || p.ndim() != ndim)
        return nullptr;
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) {
        if (t.shape(i) != p.shape(i)) return nullptr;
        n *= t.shape(i);
    }
    if (n == 0) return nullptr;
    Options options;
    for (Py_ssize_t i = 0, count = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0; i < count; ++i)
        if (!read_keyword(PyTuple_GET_ITEM(keywords, i), args[positional + i], ndim, options)) return nullptr;

    const kldiv_dtype kind = is_float ? KLDIV_FLOAT32 : KLDIV_FLOAT64;
    double total = 0;
    raise_status(call_core(n, [&](CorePoll poll, void *poll_data) {
        return kldiv_flat(kind, t.data(), p.data(), n, options.epsilon, options.num_threads, poll, poll_data, &total);
    }));
    const int64_t rows = n / t.shape(ndim - 1);
    return scalar(options.mean ? total / static_cast<double>(rows) : total, is_float);
}

PyObject *kl(PyObject *, PyObject *const *args, Py_ssize_t positional, PyObject *keywords) {
    try {
        PyObject *result = try_plain(args, positional, keywords);
        if (result != nullptr || PyErr_Occurred()) return result;
    } catch (py::error_already_set &error) {
        error.restore();
        return nullptr;
    } catch (const std::bad_alloc &) { return PyErr_NoMemory(); }
    return PyObject_Vectorcall(general, args, static_cast<size_t>(positional), keywords);
}

PyObject *intern(const char *text) { return PyUnicode_InternFromString(text); }

// The function that users call: `implementation` with a fast path before it, and its documentation.
py::object with_fast_path(const py::function &implementation, const std::string &doc) {
    general = py::object(implementation).release().ptr();
    name_axis = intern("axis");
    name_epsilon = intern("epsilon");
    name_reduction = intern("reduction");
    name_sample_weight = intern("sample_weight");
    name_mask = intern("mask");
    name_out = intern("out");
    name_num_threads = intern("num_threads");
    value_mean = intern("mean");
    value_sum = intern("sum");
    value_sum_over_batch_size = intern("sum_over_batch_size");

    static std::string text;  // as long as the module, which is never unloaded
    text = doc;
    static PyMethodDef method = {"kl", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(kl)),
                                 METH_FASTCALL | METH_KEYWORDS, nullptr};
    method.ml_doc = text.c_str();
    const py::str module("kldiv_fast");
    return py::reinterpret_steal<py::object>(PyCFunction_NewEx(&method, nullptr, module.ptr()));
}

// XLA's handlers, by the names that they are registered under.
py::dict xla_handlers() {
    using Handler = xla_abi::Error *(*)(xla_abi::CallFrame *);
    constexpr std::pair<const char *, Handler> table[] = {{"kldiv_fast_rows", xla_rows},
                                                          {"kldiv_fast_grad_y_true", xla_grad_y_true},
                                                          {"kldiv_fast_grad_y_pred", xla_grad_y_pred},
                                                          {"kldiv_fast_grad_both", xla_grad_both}};
    py::dict handlers;
    for (const auto &[name, handler] : table) handlers[name] = py::capsule(reinterpret_cast<const void *>(handler));
    return handlers;
}

py::list names(const char *(*name)(int)) {
    py::list all;
    for (int i = 0; name(i) != nullptr; ++i) all.append(name(i));
    return all;
}

}  // namespace

PYBIND11_MODULE(core_of_main_interpreter, m) {
    remember_main_thread();
    // pybind11 lets go of the GIL to look up NumPy's functions: in a thread it wouldn't survive the interpreter's end.
    py::detail::npy_api::get();
    m.attr("__version__") = KLDIV_FAST_VERSION;
    m.attr("__pyx_capi__") = cython_api();
    m.def("run", &run, py::arg("y_true"), py::arg("y_pred"), py::arg("class_ndim"), py::arg("batch_shape"),
          py::arg("weight"), py::arg("mask"), py::arg("out"), py::arg("epsilon"), py::arg("num_threads"),
          py::arg("upstream") = py::none(), py::arg("grad_y_true") = py::none(), py::arg("grad_y_pred") = py::none(),
          py::arg("progress") = py::none());
    m.def("rows", &rows, py::arg("dtype"), py::arg("y_true"), py::arg("y_pred"), py::arg("rows"), py::arg("classes"),
          py::arg("epsilon"), py::arg("upstream"), py::arg("num_threads"), py::arg("out"), py::arg("grad_y_true"),
          py::arg("grad_y_pred"));
    m.def("with_fast_path", &with_fast_path);
    m.def("xla_handlers", &xla_handlers);
    m.def("available_isas", [] { return names(kldiv_isa_name); });
    m.def("current_isa", &kldiv_current_isa);
    m.def("select_isa", [](const std::string &name) { return kldiv_select_isa(name.c_str()) == 0; });
    m.def("available_executors", [] { return names(kldiv_executor_name); });
    m.def("current_executor", &kldiv_current_executor);
    m.def("select_executor", [](const std::string &name) { return kldiv_select_executor(name.c_str()) == 0; });
    m.def("set_num_threads", &kldiv_set_num_threads);
    m.def("get_num_threads", &kldiv_get_num_threads);
    // For native code of other libraries that shares this core.
    m.attr("run_address") = reinterpret_cast<uintptr_t>(&kldiv_run);
    m.attr("tensorflow_poll_address") = reinterpret_cast<uintptr_t>(&tensorflow_poll);
    m.def("raise_interrupt", [] {
        if (raise_interrupt(nullptr) != 0) throw py::error_already_set();
    });
    m.def("runtime", &runtime);
}

// What Python calls. In a subinterpreter neither NumPy nor pybind11's state of the process is ours to use, and on Python
// 3.11 pybind11 would wait for ever for a GIL that its own thread holds.
// NOLINTNEXTLINE(bugprone-reserved-identifier): Python makes the name of it.
PyMODINIT_FUNC PyInit__core() {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(
            PyExc_ImportError,
            "kldiv_fast is imported in a subinterpreter; expected Python's main interpreter: use a thread or a "
            "process of it (with mod_wsgi: WSGIApplicationGroup %{GLOBAL})");
        return nullptr;
    }
    return PyInit_core_of_main_interpreter();
}
