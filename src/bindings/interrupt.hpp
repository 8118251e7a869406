// A call of the core without the GIL, which Python's main thread takes back now and then to handle signals (Ctrl-C).
// Included by the bindings and by what XLA calls.
#pragma once
#include <Python.h>

#include "kldiv.h"

using CorePoll = int (*)(void *data, double done);

// Called once, when the module is imported.
void remember_main_thread();
// Python's: the one that runs signal handlers. Needs no GIL.
bool is_main_thread();

// PyEval_RestoreThread for a thread that may be ended by it. At the interpreter's end Python up to 3.13 ends a thread that
// asks for the GIL, by unwinding its stack; there are frames on it that hold references, and the GIL is not theirs. Such a
// thread stays here for good, as with Python 3.14.
void take_gil(PyThreadState *state);

// What polls need to know of a call that runs without the GIL.
struct WithoutGil {
    PyThreadState *state;
    PyObject *progress;  // called with the part that is done; nullptr: nobody wants to know
};
int poll_without_gil(void *without_gil, double done);

// The polls of a call that a framework makes on this thread, through frames of its own that no exception may cross: what a
// signal's handler raises stops the call, is kept, and is raised when Python's code goes on. nullptr on other threads than
// the main one, where no handler can run.
CorePoll xla_poll();         // raises it by itself
CorePoll tensorflow_poll();  // leaves it to _tensorflow.py: TensorFlow runs code of Python's to make its own error
// Raises what was kept and returns -1, or returns 0: a "pending call" of Python's.
int raise_interrupt(void *);

// call(poll, poll_data), without the GIL. Only the main thread polls. KLDIV_INTERRUPTED comes with an exception set.
template <class Call>
kldiv_status without_gil(const Call &call, PyObject *progress = nullptr) {
    const CorePoll poll = is_main_thread() ? poll_without_gil : nullptr;
    WithoutGil data = {PyEval_SaveThread(), progress};
    const kldiv_status status = call(poll, &data);
    take_gil(data.state);
    return status;
}
