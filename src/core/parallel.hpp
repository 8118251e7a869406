// How tasks become threads. Included by kldiv.cpp.
#pragma once
#include <cstdint>

#include "kldiv.h"

namespace kldiv {

// Whether to go on is asked at most every 20 ms, by the calling thread alone, over the whole of one call.
class Poll {
public:
    Poll(int (*ask)(void *), void *data) : ask_(ask), data_(data) {}
    bool wants_stop();

private:
    int (*ask_)(void *);
    void *data_;
    int64_t due_ = 0;  // nanoseconds of the steady clock; 0: not yet asked for
};

// Threads worth using on `elements` elements in `tasks` tasks; `requested` is the call's own wish, 0 for none.
int choose_threads(int requested, int64_t elements, int64_t tasks);

// run(context, worker, i) for every i in [0, tasks), in any order; each of the workers, numbered from 0 and at most
// `threads`, is a thread. KLDIV_INTERRUPTED once the poll wants a stop; tasks not yet begun are then left out.
kldiv_status run_tasks(int threads, int64_t tasks, Poll &poll, void (*run)(void *context, int worker, int64_t i),
                       void *context);

}  // namespace kldiv
