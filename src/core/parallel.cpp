// The core's threads: a pool of helpers that take tasks beside the calling thread. Which thread runs a task never changes
// a result, because every task writes to a place of its own.
//
// OpenMP says how many threads there may be (OMP_NUM_THREADS, threadpoolctl, a caller's own region), but its regions are
// not used: they end with their last thread, so that a helper which the operating system keeps waiting makes the caller
// wait; their threads go on spinning for milliseconds, at the cost of whatever runs next; and each calling thread gets a
// team of its own. Here the caller works too, and waits only for helpers that are in the middle of a task.
#include "parallel.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

namespace kldiv {
namespace {

// A second thread has to save more than waking it costs (some microseconds): 64 Ki elements take one thread some 8 us.
constexpr int64_t kElementsPerThread = int64_t{1} << 16;
constexpr std::chrono::milliseconds kPollEvery{20};
// How long a thread looks out for the next job, or for the last helper, before it sleeps: at first without a break, then
// letting others go first. (Waking up costs some 50 us, and may be on the waker's own core.)
constexpr std::chrono::microseconds kAttentive{10};
constexpr std::chrono::microseconds kLookOut{1000};

std::atomic<int> threads_setting{0};  // 0: OpenMP's own

// A forked child has none of its parent's threads, and often as many siblings as there are cores: it stays serial.
std::atomic<bool> forked{false};

int openmp_threads() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

void relax() {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
    __asm__ __volatile__("isb");
#endif
}

// Whether `holds` came true within kLookOut.
template <class Condition>
bool look_out(Condition holds) {
    const auto begin = std::chrono::steady_clock::now();
    for (auto now = begin; now < begin + kLookOut; now = std::chrono::steady_clock::now()) {
        for (int i = 0; i < 16; ++i) {
            if (holds()) return true;
            relax();
        }
        if (now > begin + kAttentive) std::this_thread::yield();
    }
    return false;
}

// The core that the calling thread runs on, -1 where nobody says.
int current_core() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

// Schedulers like to wake a helper on its caller's core, and may leave it there for long while others are idle: there it
// helps nobody. Leaves that core for another that this thread may use.
void step_aside(int core) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (core < 0 || current_core() != core || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof allowed, &allowed);
#else
    (void)core;
#endif
}

// Where OpenMP binds threads to cores (OMP_PROC_BIND) it has bound the calling thread, and a helper starts with that
// thread's cores: it leaves them for all that OpenMP may use.
void leave_callers_place() {
#if defined(__linux__) && defined(_OPENMP)
    if (omp_get_proc_bind() == omp_proc_bind_false) return;
    cpu_set_t all;
    CPU_ZERO(&all);
    for (int place = 0; place < omp_get_num_places(); ++place) {
        int cores[CPU_SETSIZE];
        const int n = omp_get_place_num_procs(place);
        if (n > CPU_SETSIZE) return;
        omp_get_place_proc_ids(place, cores);
        for (int i = 0; i < n; ++i)
            if (cores[i] >= 0 && cores[i] < CPU_SETSIZE) CPU_SET(cores[i], &all);
    }
    if (CPU_COUNT(&all) > 0) sched_setaffinity(0, sizeof all, &all);
#endif
}

// One call's tasks, handed out in order by a counter. It stands on the caller's stack.
struct Job {
    const int64_t tasks;
    void (*const run)(void *, int, int64_t);
    void *const context;
    std::atomic<int64_t> next{0};
    std::atomic<bool> stop{false};

    // Guarded by the pool's mutex.
    int free_seats;
    int workers = 1;  // that ever took a seat, the caller being the first
    Job *behind = nullptr;
    std::atomic<int> helpers{0};  // at work; changed with the mutex held

    Job(int64_t n, void (*r)(void *, int, int64_t), void *c, int seats)
        : tasks(n), run(r), context(c), free_seats(seats) {}

    // The calling thread also asks, now and then, whether to stop.
    void work(int worker, Poll *poll) {
        while (!stop.load(std::memory_order_relaxed)) {
            const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
            if (i >= tasks) return;
            run(context, worker, i);
            if (poll != nullptr && poll->wants_stop()) stop.store(true, std::memory_order_relaxed);
        }
    }

    // The poll forked, and this is the child: helpers are gone with the tasks that they had begun, and the pool's mutex
    // may be theirs for ever.
    void work_again(Poll &poll) {
        next.store(0, std::memory_order_relaxed);
        work(0, &poll);
    }

    bool wants_help() const { return free_seats > 0 && next.load(std::memory_order_relaxed) < tasks; }
};

class Pool {
public:
    // Runs the job on the calling thread and on as many helpers as come in time.
    void run(Job &job, Poll &poll) {
        open(job);
        job.work(0, &poll);
        if (forked.load(std::memory_order_relaxed))
            job.work_again(poll);
        else
            close(job);
    }

private:
    void open(Job &job) {
        std::unique_lock<std::mutex> lock(mutex_);
        while (size_ < job.free_seats && grow()) ++size_;
        job.behind = first_;
        first_ = &job;
        callers_core_.store(current_core(), std::memory_order_relaxed);
        opened_.fetch_add(1, std::memory_order_relaxed);
        const int to_wake = static_cast<int>(smaller(job.free_seats, asleep_));
        lock.unlock();
        for (int i = 0; i < to_wake; ++i) wake_.notify_one();
    }

    // No helper may join from here on; those at work are waited for.
    void close(Job &job) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            Job **link = &first_;
            while (*link != &job) link = &(*link)->behind;
            *link = job.behind;
        }
        const auto idle = [&job] { return job.helpers.load(std::memory_order_acquire) == 0; };
        if (look_out(idle)) {
            const std::lock_guard<std::mutex> lock(mutex_);  // the last helper has let go of the job
            return;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        left_.wait(lock, idle);
    }

    bool grow() {
        try {
            std::thread([this] { serve(); }).detach();
            return true;
        } catch (const std::exception &) {
            return false;  // no more threads, or no memory for one, are to be had: fewer will do
        }
    }

    void serve() {
#if defined(__unix__) || defined(__APPLE__)
        // Signals are for the program's own threads, but for those that a task itself may raise: blocked, they would end
        // the process without the program's handler (Python's faulthandler).
        sigset_t blocked;
        sigfillset(&blocked);
        for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&blocked, fault);
        pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
#endif
        leave_callers_place();
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            if (Job *job = job_that_wants_help())
                help(*job, lock);
            else
                wait_for_a_job(lock);
        }
    }

    Job *job_that_wants_help() const {
        for (Job *job = first_; job != nullptr; job = job->behind)
            if (job->wants_help()) return job;
        return nullptr;
    }

    void help(Job &job, std::unique_lock<std::mutex> &lock) {
        const int worker = job.workers++;
        --job.free_seats;
        job.helpers.fetch_add(1, std::memory_order_relaxed);
        lock.unlock();
        job.work(worker, nullptr);
        lock.lock();
        if (job.helpers.fetch_sub(1, std::memory_order_release) == 1) left_.notify_all();
    }

    void wait_for_a_job(std::unique_lock<std::mutex> &lock) {
        const uint64_t seen = opened_.load(std::memory_order_relaxed);
        lock.unlock();
        const auto opened = [&] { return opened_.load(std::memory_order_relaxed) != seen; };
        if (!look_out(opened)) {
            lock.lock();
            ++asleep_;
            wake_.wait(lock, opened);
            --asleep_;
            lock.unlock();
        }
        step_aside(callers_core_.load(std::memory_order_relaxed));
        lock.lock();
    }

    std::mutex mutex_;
    std::condition_variable wake_, left_;
    std::atomic<uint64_t> opened_{0};    // jobs so far
    std::atomic<int> callers_core_{-1};  // of the last
    Job *first_ = nullptr;
    int size_ = 0;    // helpers there are
    int asleep_ = 0;  // of them
};

// Made when it is first wanted and never destroyed: its helpers may be waiting when the process ends. nullptr: no memory.
std::atomic<Pool *> the_pool{nullptr};

Pool *pool() {
    Pool *current = the_pool.load(std::memory_order_acquire);
    if (current != nullptr) return current;
    Pool *made = new (std::nothrow) Pool;
    if (the_pool.compare_exchange_strong(current, made, std::memory_order_acq_rel)) return made;
    delete made;
    return current;
}

#if defined(__unix__) || defined(__APPLE__)
void remember_fork() { forked.store(true, std::memory_order_relaxed); }
const int fork_handler_registered = pthread_atfork(nullptr, nullptr, remember_fork);
#endif

}  // namespace

bool Poll::wants_stop() {
    if (ask_ == nullptr) return false;
    const int64_t now = std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
    const bool first = due_ == 0;
    if (now < due_) return false;
    due_ = now + std::chrono::nanoseconds(kPollEvery).count();
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
    Job job(tasks, run, context, threads - 1);
    Pool *helpers = threads > 1 ? pool() : nullptr;
    if (helpers != nullptr)
        helpers->run(job, poll);
    else
        job.work(0, &poll);
    return job.stop ? KLDIV_INTERRUPTED : KLDIV_OK;
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
