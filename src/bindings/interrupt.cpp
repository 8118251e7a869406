// See interrupt.hpp.
#include "interrupt.hpp"

#include <pybind11/pybind11.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace py = pybind11;

namespace {

unsigned long main_thread = 0;

// In a forked child the thread that forked is Python's main thread.
void remember_this_thread() { main_thread = PyThread_get_thread_ident(); }

// What a signal's handler raised in a framework's call, until Python can have it. No destructor: it would run after
// Python's end.
py::error_already_set *interrupt = nullptr;

// The framework may have kept the GIL or not. An exception left in Python's state would meet the one that the framework
// makes of our error.
bool keep_interrupt() {
    if (!Py_IsInitialized()) return false;
    const PyGILState_STATE gil = PyGILState_Ensure();
    const bool raised = PyErr_CheckSignals() != 0;
    if (raised) delete std::exchange(interrupt, new py::error_already_set());
    PyGILState_Release(gil);
    return raised;
}

int poll_in_xla(void *, double) {
    if (!keep_interrupt()) return 0;
    Py_AddPendingCall(raise_interrupt, nullptr);
    return 1;
}

int poll_in_tensorflow(void *, double) { return keep_interrupt(); }

}  // namespace

void remember_main_thread() {
    // The list begins with the newest thread and ends with the one that Python began with.
    PyThreadState *oldest = PyThreadState_Get();
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
    for (; state != nullptr; state = PyThreadState_Next(state)) oldest = state;
    main_thread = oldest->thread_id;
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, remember_this_thread);
#endif
}

bool is_main_thread() { return PyThread_get_thread_ident() == main_thread; }

void take_gil(PyThreadState *state) {
    try {
        PyEval_RestoreThread(state);
    } catch (...) {  // glibc's pthread_exit; it must not be swallowed, and is not
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
}

CorePoll xla_poll() { return is_main_thread() ? poll_in_xla : nullptr; }
CorePoll tensorflow_poll() { return is_main_thread() ? poll_in_tensorflow : nullptr; }

int raise_interrupt(void *) {
    const std::unique_ptr<py::error_already_set> kept(std::exchange(interrupt, nullptr));
    if (kept == nullptr) return 0;
    kept->restore();
    return -1;
}

int poll_without_gil(void *without_gil, double done) {
    WithoutGil &data = *static_cast<WithoutGil *>(without_gil);
    take_gil(data.state);
    int raised = PyErr_CheckSignals();
    if (raised == 0 && data.progress != nullptr) {
        PyObject *result = PyObject_CallFunction(data.progress, "d", done);
        raised = result == nullptr;
        Py_XDECREF(result);
    }
    data.state = PyEval_SaveThread();
    return raised;
}
