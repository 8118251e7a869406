// The extension module: what of the core Python sees. Nothing is computed here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>

#include "arrays.hpp"
#include "cython/cython_api.hpp"
#include "divergence.hpp"
#include "interrupt.hpp"
#include "kldiv.h"
#include "run.hpp"
#include "runtime.hpp"
#include "xla.hpp"

namespace py = pybind11;

namespace {

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

// The core's table: each operation's name, and its parameters beyond those that all have.
py::list operations() {
    py::list rows;
    for (int i = 0; kldiv_operation_name(i) != nullptr; ++i) {
        const std::string parameters = kldiv_operation_parameters(i);
        py::object names = parameters.empty() ? py::list() : py::str(parameters).attr("split")(",");
        rows.append(py::make_tuple(kldiv_operation_name(i), py::tuple(names)));
    }
    return rows;
}

}  // namespace

PYBIND11_MODULE(core_of_main_interpreter, m) {
    remember_main_thread();
    // pybind11 lets go of the GIL to look up NumPy's functions: in a thread it wouldn't survive the interpreter's end.
    arrays::Numpy::get();
    m.attr("__version__") = KLDIV_FAST_VERSION;
    m.attr("__pyx_capi__") = cython_api();
    add_run(m);
    m.def("operations", &operations);
    m.def("forms", [] { return names(kldiv_form_name); });
    m.def("function", &make_function, py::arg("operation"), py::arg("has_gradients"), py::arg("name"), py::arg("doc"),
          py::arg("fallback"));
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
