// The only OpenMP in the house; without OpenMP everything here is serial. Which thread runs a task never changes a
// result, because every task writes to a place of its own.
#include "parallel.hpp"

#include <atomic>
#include <chrono>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace kldiv {
namespace {

// A second thread has to save more than waking it costs (about 3 us): 64 Ki elements take one thread some 8 us.
constexpr int64_t kElementsPerThread = int64_t{1} << 16;
constexpr int64_t kPollEvery = 20 * 1000 * 1000;  // nanoseconds

std::atomic<int> threads_setting{0};  // 0: OpenMP's own

// OpenMP's threads do not survive a fork, and its runtime may wait for them for ever: a forked child stays serial.
std::atomic<bool> forked{false};

#if defined(__unix__) || defined(__APPLE__)
void remember_fork() { forked.store(true, std::memory_order_relaxed); }
const int fork_handler_registered = pthread_atfork(nullptr, nullptr, remember_fork);
#endif

int openmp_threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Tasks are handed out in order by one counter; the calling thread also asks, now and then, whether to stop.
struct Queue {
    std::atomic<int64_t> next{0};
    std::atomic<bool> stop{false};

    void work(int worker, int64_t tasks, Poll *poll, void (*run)(void *, int, int64_t), void *context) {
        while (!stop.load(std::memory_order_relaxed)) {
            const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
            if (i >= tasks) return;
            run(context, worker, i);
            if (poll != nullptr && poll->wants_stop()) stop.store(true, std::memory_order_relaxed);
        }
    }
};

}  // namespace

bool Poll::wants_stop() {
    if (ask_ == nullptr) return false;
    const int64_t now = std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
    const bool first = due_ == 0;
    if (now < due_) return false;
    due_ = now + kPollEvery;
    return !first && ask_(data_) != 0;
}

int choose_threads(int requested, int64_t elements, int64_t tasks) {
    const int64_t worth = smaller(elements / kElementsPerThread, tasks);
    if (worth <= 1 || forked.load(std::memory_order_relaxed)) return 1;
#if defined(_OPENMP)
    if (omp_in_parallel()) return 1;
    const int64_t wanted = requested > 0 ? smaller(requested, omp_get_thread_limit()) : kldiv_get_num_threads();
    return static_cast<int>(smaller(wanted, worth));
#else
    (void)requested;
    return 1;
#endif
}

kldiv_status run_tasks(int threads, int64_t tasks, Poll &poll, void (*run)(void *context, int worker, int64_t i),
                       void *context) {
    Queue queue;
#if defined(_OPENMP)
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            const int worker = omp_get_thread_num();
            queue.work(worker, tasks, worker == 0 ? &poll : nullptr, run, context);
        }
        return queue.stop ? KLDIV_INTERRUPTED : KLDIV_OK;
    }
#endif
    (void)threads;
    queue.work(0, tasks, &poll, run, context);
    return queue.stop ? KLDIV_INTERRUPTED : KLDIV_OK;
}

}  // namespace kldiv

void kldiv_set_num_threads(int n) { kldiv::threads_setting.store(n, std::memory_order_relaxed); }

int kldiv_get_num_threads(void) {
    const int setting = kldiv::threads_setting.load(std::memory_order_relaxed);
    const int limit = kldiv::openmp_threads();
    return setting > 0 && setting < limit ? setting : limit;
}

kldiv_threads kldiv_describe_threads(void) {
    kldiv_threads threads{};
    threads.setting = kldiv::threads_setting.load(std::memory_order_relaxed);
    threads.forked = kldiv::forked.load(std::memory_order_relaxed);
#if defined(_OPENMP)
    threads.limit = omp_get_max_threads();
    threads.processors = omp_get_num_procs();
#if defined(__unix__) || defined(__APPLE__)
    Dl_info info;
    if (dladdr(reinterpret_cast<void *>(omp_get_max_threads), &info) != 0) threads.library = info.dli_fname;
#endif
#endif
    return threads;
}
