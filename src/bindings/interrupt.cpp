// See interrupt.hpp.
#include "interrupt.hpp"

#include <chrono>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace {

unsigned long main_thread = 0;

// In a forked child the thread that forked is Python's main thread.
void remember_this_thread() { main_thread = PyThread_get_thread_ident(); }

}  // namespace

void remember_main_thread() {
    // The list begins with the newest thread and ends with the one that Python began with.
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
    for (PyThreadState *older = state; older != nullptr; older = PyThreadState_Next(older)) state = older;
    main_thread = state->thread_id;
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
