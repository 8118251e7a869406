// Large calls of the core from the threads of somebody else's pool; for the adapters. There, OpenMP does harm: it keeps
// a team for every thread that ever opened a parallel region, and a team that has nothing to do spins for milliseconds
// on cores that the framework wants for its next operation. So the rows are dealt out to a few threads that sleep
// between calls, and the core is asked for one thread each time. One pool for the process; who finds it taken works
// alone.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <type_traits>

#include "kldiv.h"

namespace kldiv_adapters {

constexpr int64_t kElementsPerThread = int64_t{1} << 16;  // less is not worth waking one for
constexpr int kSlicesPerThread = 4;                       // so that a thread that comes late does less

// What of the core is called; it lives in another library.
struct Core {
    decltype(&kldiv_run) run;
    decltype(&kldiv_get_num_threads) threads;
};

// Rows [first, last) along one batch axis of a problem.
inline kldiv_problem slice(const kldiv_problem &whole, int axis, int64_t first, int64_t last) {
    kldiv_problem part = whole;
    kldiv_axis &at = part.batch[axis];
    const auto moved = [first](auto *data, int64_t stride) {
        using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(data)>>, const char, char>;
        return data == nullptr ? data : static_cast<decltype(data)>(static_cast<Byte *>(data) + first * stride);
    };
    at.extent = last - first;
    part.y_true.data = moved(part.y_true.data, at.y_true);
    part.y_pred.data = moved(part.y_pred.data, at.y_pred);
    part.upstream.data = moved(part.upstream.data, at.upstream);
    part.out = moved(part.out, at.out);
    part.grad_y_true = moved(part.grad_y_true, at.grad_y_true);
    part.grad_y_pred = moved(part.grad_y_pred, at.grad_y_pred);
    return part;
}

// A problem cut along its longest batch axis; threads take slice after slice until none is left.
struct Job {
    const Core &core;
    const kldiv_problem &problem;
    int axis;
    int64_t slices;
    std::atomic<int64_t> next{0};
    std::atomic<int> status{KLDIV_OK};

    void work() {
        const int64_t rows = problem.batch[axis].extent;
        for (int64_t i = next.fetch_add(1); i < slices; i = next.fetch_add(1)) {
            const kldiv_problem part = slice(problem, axis, rows * i / slices, rows * (i + 1) / slices);
            const kldiv_status done = core.run(&part, nullptr);
            if (done != KLDIV_OK) status = done;
        }
    }
};

class Pool {
public:
    // One for the process, never destroyed: its threads may be asleep when the process ends.
    static Pool &only() {
        static Pool &pool = *new Pool;
        return pool;
    }

    // The calling thread and up to `helpers` others work; false: the pool is taken, or was left behind by a fork.
    bool run(Job &job, int helpers) {
        const std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn || owner_ != getpid()) return false;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            for (; size_ < helpers; ++size_) std::thread([this] { serve(); }).detach();
            job_ = &job;
            wanted_ = helpers;
        }
        wake_.notify_all();
        job.work();
        std::unique_lock<std::mutex> lock(mutex_);
        wanted_ = 0;  // who has not woken by now needs not
        idle_.wait(lock, [this] { return busy_ == 0; });
        return true;
    }

private:
    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [this] { return wanted_ > 0; });
            --wanted_;
            ++busy_;
            Job &job = *job_;
            lock.unlock();
            job.work();
            lock.lock();
            if (--busy_ == 0) idle_.notify_one();
        }
    }

    const pid_t owner_ = getpid();
    std::mutex turn_;   // held by the caller whose job it is
    std::mutex mutex_;  // guards what follows
    std::condition_variable wake_, idle_;
    Job *job_ = nullptr;
    int size_ = 0, wanted_ = 0, busy_ = 0;
};

// The problem, of so many elements, by as many threads as are worth it.
inline kldiv_status run_in_pool(const Core &core, kldiv_problem problem, int64_t elements) {
    problem.num_threads = 1;
    int longest = 0;
    for (int i = 1; i < problem.batch_ndim; ++i)
        if (problem.batch[i].extent > problem.batch[longest].extent) longest = i;
    const int64_t rows = problem.batch_ndim > 0 ? problem.batch[longest].extent : 1;
    const int64_t worth = std::min(elements / kElementsPerThread, rows);
    const int threads = static_cast<int>(std::min<int64_t>(worth, worth > 1 ? core.threads() : 1));
    if (threads > 1) {
        Job job{core, problem, longest, std::min<int64_t>(rows, int64_t{threads} * kSlicesPerThread)};
        if (Pool::only().run(job, threads - 1)) return static_cast<kldiv_status>(job.status.load());
    }
    return core.run(&problem, nullptr);
}

}  // namespace kldiv_adapters
