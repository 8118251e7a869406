// Who runs a plan's tasks. A job hands its tasks out in order by a counter; an executor brings threads to it, the calling
// one first. Which thread runs a task never changes a result, because every task writes to a place of its own. Included by
// kldiv.cpp and by the executors; nobody else knows threads.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>

#include "kldiv.h"

namespace kldiv {

using Clock = std::chrono::steady_clock;
constexpr int kCacheLine = 64;

// Whether to go on is asked at most every 50 ms of one call, by the calling thread alone.
class Poll {
public:
    Poll(int (*ask)(void *, double), void *data) : ask_(ask), data_(data) {}
    // What is asked about from here on is this part of the whole call.
    void cover(double from, double to) { from_ = from, to_ = to; }
    bool is_due();
    bool wants_stop(double done) { return ask_(data_, from_ + done * (to_ - from_)) != 0; }

private:
    int (*ask_)(void *, double);
    void *data_;
    double from_ = 0, to_ = 1;
    int64_t due_ = 0;  // nanoseconds of the steady clock; 0: not yet asked for
};

// It stands on the caller's stack. What threads write to often has a cache line of its own.
class Job {
public:
    using Run = void (*)(void *context, int worker, int64_t task);

    Job(int64_t tasks, Run run, void *context, Poll &poll) : tasks_(tasks), run_(run), context_(context), poll_(poll) {}

    // Takes tasks until there are none, the poll is due, or it is later than `end`; the worker 0 is the calling thread.
    void work(int worker, Clock::time_point end = Clock::time_point::max());
    bool wants_help() const { return !pause_.load(std::memory_order_relaxed) && begun() < tasks_; }

    bool is_half_done() const { return 2 * begun() >= tasks_; }

    // Between two stretches of work, when no worker is at a task:
    bool done() const { return begun() >= tasks_; }
    bool wants_stop() { return poll_.wants_stop(static_cast<double>(begun()) / static_cast<double>(tasks_)); }
    void resume() { pause_.store(false, std::memory_order_relaxed); }

private:
    int64_t begun() const { return next_.load(std::memory_order_relaxed); }

    const int64_t tasks_;
    const Run run_;
    void *const context_;
    Poll &poll_;
    alignas(kCacheLine) std::atomic<bool> pause_{false};
    alignas(kCacheLine) std::atomic<int64_t> next_{0};
};

// An executor's `run` calls job.work on the calling thread and on at most threads - 1 others, numbered from 1, and returns
// when none of them is in it any more. It may bring fewer: the caller alone is enough.
struct Executor {
    const char *name;
    void (*run)(Job &job, int threads);
};
extern const Executor executor_pool;
#if defined(_OPENMP)
extern const Executor executor_openmp;
#endif

// Threads worth using on `elements` elements in `tasks` tasks; `requested` is the call's own wish, 0 for none.
int choose_threads(int requested, int64_t elements, int64_t tasks);

// run(context, worker, i) for every i in [0, tasks), in any order; workers are numbered from 0 and fewer than `threads`.
// KLDIV_INTERRUPTED once the poll wants a stop; tasks not yet begun are then left out.
kldiv_status run_tasks(int threads, int64_t tasks, Poll &poll, Job::Run run, void *context);

}  // namespace kldiv
