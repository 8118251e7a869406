// See executor.hpp. Jobs, how many threads they get, and the table of executors.
#include "executor.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>

#include "arithmetic.hpp"
#include "processors.hpp"

#if defined(_OPENMP)
#include <omp.h>
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif
#endif

namespace kldiv {
namespace {

// A second thread has to save more than waking it costs (some microseconds): 64 Ki elements take one thread some 8 us.
constexpr int64_t kElementsPerThread = int64_t{1} << 16;
constexpr std::chrono::milliseconds kPollEvery{50};

// The default first: docs/speed.md, "Executors", says why.
constexpr const Executor *kExecutors[] = {
    &executor_pool,
#if defined(_OPENMP)
    &executor_openmp,
#endif
};

std::atomic<const Executor *> current{kExecutors[0]};
std::atomic<int> threads_setting{0};  // 0: no wish of ours

}  // namespace

bool Poll::is_due() {
    if (ask_ == nullptr) return false;
    const int64_t now = std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
    const bool first = due_ == 0;
    if (now < due_) return false;
    due_ = now + std::chrono::nanoseconds(kPollEvery).count();
    return !first;
}

void Job::work(int worker, Clock::time_point end) {
    const PlainArithmetic plain;
    while (!pause_.load(std::memory_order_relaxed) && (end == Clock::time_point::max() || Clock::now() < end)) {
        const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
        if (i >= tasks_) return;
        run_(context_, worker, i);
        if (worker == 0 && poll_.is_due()) pause_.store(true, std::memory_order_relaxed);
    }
}

int choose_threads(int requested, int64_t elements, int64_t tasks) {
    const int64_t worth = std::min(elements / kElementsPerThread, tasks);
    if (worth <= 1) return 1;
#if defined(_OPENMP)
    if (omp_in_parallel()) return 1;
#endif
    const int wanted = requested > 0 ? std::min(requested, processors()) : kldiv_get_num_threads();
    return static_cast<int>(std::min<int64_t>(wanted, worth));
}

// The poll is asked when nobody is at work: what it calls may fork, throw, or end this thread.
kldiv_status run_tasks(int threads, int64_t tasks, Poll &poll, Job::Run run, void *context) {
    if (tasks == 1) {  // which nobody shares, and which is over before anyone would ask
        run(context, 0, 0);
        return KLDIV_OK;
    }
    Job job(tasks, run, context, poll);
    for (;;) {
        if (threads > 1)
            current.load(std::memory_order_relaxed)->run(job, threads);
        else
            job.work(0);
        if (job.done()) return KLDIV_OK;
        if (job.wants_stop()) return KLDIV_INTERRUPTED;
        job.resume();
    }
}

}  // namespace kldiv

const char *kldiv_executor_name(int i) {
    return i < static_cast<int>(std::size(kldiv::kExecutors)) ? kldiv::kExecutors[i]->name : nullptr;
}

const char *kldiv_current_executor(void) { return kldiv::current.load(std::memory_order_relaxed)->name; }

int kldiv_select_executor(const char *name) {
    for (const kldiv::Executor *executor : kldiv::kExecutors)
        if (std::strcmp(executor->name, name) == 0) {
            kldiv::current.store(executor, std::memory_order_relaxed);
            return 0;
        }
    return -1;
}

void kldiv_set_num_threads(int n) { kldiv::threads_setting.store(n, std::memory_order_relaxed); }

int kldiv_get_num_threads(void) {
    const int setting = kldiv::threads_setting.load(std::memory_order_relaxed);
    const int most = std::min(kldiv::thread_limit(), kldiv::processors());
    return setting > 0 ? std::min(setting, most) : most;
}

kldiv_threads kldiv_describe_threads(void) {
    kldiv_threads threads{};
    threads.setting = kldiv::threads_setting.load(std::memory_order_relaxed);
    threads.limit = kldiv::thread_limit();
    threads.processors = kldiv::processors();
    threads.forked = kldiv::is_forked();
#if defined(_OPENMP) && (defined(__unix__) || defined(__APPLE__))
    Dl_info info;
    if (dladdr(reinterpret_cast<void *>(omp_get_max_threads), &info) != 0) threads.library = info.dli_fname;
#endif
    return threads;
}
