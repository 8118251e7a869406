// A pool of helpers of our own: threads that look out for jobs and take tasks beside the calling thread.
//
// The caller never waits for a helper that has not begun: one that the operating system keeps waiting costs it nothing,
// where a region of OpenMP ends with its last thread. Helpers serve all calling threads, and look out for the next job for
// no longer than it pays.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

#include "executor.hpp"
#include "processors.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

namespace kldiv {
namespace {

// How long a helper looks out for the next job before it sleeps, and a caller for the last helper, which is in the middle
// of a task: at first without a break, then letting others go first. A hot loop's next call comes within some
// microseconds; whoever calls every 2 ms pays for each look-out in vain (0.28 ms of processor time for a call of 256x1000
// that takes 0.2 ms on one thread, with 100 us 0.35 ms, with 1 ms 1.2 ms).
constexpr std::chrono::microseconds kAttentive{10};
constexpr std::chrono::microseconds kNextJob{50};
constexpr std::chrono::microseconds kLastTask{200};
// How long one that was woken may take to come: mostly it takes 40 us, or 2 ms. To replace it costs the caller 50 us, which
// a job that is half done is not worth; a hot loop's next one is.
constexpr std::chrono::microseconds kRise{200};
constexpr Clock::time_point kNever = Clock::time_point::max();

void relax() {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
    __asm__ __volatile__("isb");
#endif
}

// The core that the calling thread runs on, -1 where nobody says.
int current_core() {
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

// Whether `holds` came true in time.
template <class Condition>
bool look_out(std::chrono::microseconds most, Condition holds) {
    if (holds()) return true;
    if (!may_spin()) return false;
    const auto begin = Clock::now();
    for (auto now = begin; now < begin + most; now = Clock::now()) {
        for (int i = 0; i < 16; ++i) {
            if (holds()) return true;
            relax();
        }
        if (now > begin + kAttentive) std::this_thread::yield();
    }
    return false;
}

// A job with seats for helpers, in the list of those that are open. It stands on the caller's stack; all but `helpers` is
// guarded by the pool's mutex.
struct Opening {
    Job &job;
    int free_seats;
    int workers = 1;  // that ever took a seat, the caller being the first
    Opening *behind = nullptr;
    alignas(kCacheLine) std::atomic<int> helpers{0};  // at work; changed with the mutex held

    Opening(Job &j, int seats) : job(j), free_seats(seats) {}
    bool wants_help() const { return free_seats > 0 && job.wants_help(); }
};

class Pool {
public:
    void run(Job &job, int threads) {
        Opening opening(job, threads - 1);
        const Closing closing(*this, opening);
        const Clock::time_point called = called_at_.load(std::memory_order_relaxed);
        if (called != kNever) {
            job.work(0, called + kRise);
            if (!job.is_half_done()) replace_late();
        }
        job.work(0);
    }

private:
    // Whatever ends the caller's part of a job first closes it: helpers work on the caller's stack.
    class Closing {
    public:
        Closing(Pool &pool, Opening &opening) : pool_(pool), opening_(opening) { pool_.open(opening_); }
        ~Closing() { pool_.close(opening_); }
        Closing(const Closing &) = delete;
        Closing &operator=(const Closing &) = delete;

    private:
        Pool &pool_;
        Opening &opening_;
    };

    // Wakes one helper at the most, which wakes the next.
    void open(Opening &opening) {
        std::unique_lock<std::mutex> lock(mutex_);
        const int missing = std::max(0, opening.free_seats - size_);
        size_ += missing;
        opening.behind = first_;
        first_ = &opening;
        callers_core_.store(current_core(), std::memory_order_relaxed);
        opened_.fetch_add(1, std::memory_order_relaxed);
        const bool wake = call_one(opening);
        lock.unlock();
        if (wake) wake_.notify_one();
        make_helpers(missing, kAnyCore);
    }

    // Whether one that sleeps is to be woken for the job; the lock is held.
    bool call_one(const Opening &opening) {
        if (asleep_ == 0 || opening.free_seats <= looking_ + called_) return false;
        --asleep_;
        if (called_++ == 0) called_at_.store(Clock::now(), std::memory_order_relaxed);
        return true;
    }

    // New ones for those who were called and have not come: these leave when they can.
    void replace_late() {
        std::unique_lock<std::mutex> lock(mutex_);
        if (called_ == 0 || Clock::now() < called_at_.load(std::memory_order_relaxed) + kRise) return;
        const int late = called_;
        called_ = 0;
        leaving_ += late;
        called_at_.store(kNever, std::memory_order_relaxed);
        lock.unlock();
        make_helpers(late, callers_core_.load(std::memory_order_relaxed));
    }

    void make_helpers(int count, int avoided) {
        for (int made = 0; made < count; ++made)
            if (!make_helper(avoided)) return forget(count - made);
    }

    // No helper may join from here on; those at work are waited for.
    void close(Opening &opening) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            Opening **link = &first_;
            while (*link != &opening) link = &(*link)->behind;
            *link = opening.behind;
        }
        const auto idle = [&opening] { return opening.helpers.load(std::memory_order_acquire) == 0; };
        const bool soon = look_out(kLastTask, idle);
        std::unique_lock<std::mutex> lock(mutex_);  // the last helper has let go of it
        if (!soon) left_.wait(lock, idle);
    }

    // False: no more threads, or no memory for one, are to be had, and fewer will do.
    bool make_helper(int avoided) {
        return start_thread([](void *pool) { static_cast<Pool *>(pool)->serve(); }, this, avoided);
    }

    void forget(int helpers) {
        const std::lock_guard<std::mutex> lock(mutex_);
        size_ -= helpers;
    }

    void serve() {
        block_signals();
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            if (Opening *opening = one_that_wants_help())
                help(*opening, lock);
            else if (!wait_for_another(lock))
                return;
        }
    }

    // Signals are for the program's own threads, but for those that a task itself may raise: blocked, they would end the
    // process without the program's handler (Python's faulthandler).
    static void block_signals() {
#if defined(__unix__) || defined(__APPLE__)
        sigset_t blocked;
        sigfillset(&blocked);
        for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&blocked, fault);
        pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
#endif
    }

    Opening *one_that_wants_help() const {
        for (Opening *opening = first_; opening != nullptr; opening = opening->behind)
            if (opening->wants_help()) return opening;
        return nullptr;
    }

    void help(Opening &opening, std::unique_lock<std::mutex> &lock) {
        const int worker = opening.workers++;
        --opening.free_seats;
        opening.helpers.fetch_add(1, std::memory_order_relaxed);
        const Opening *another = one_that_wants_help();
        const bool wake = another != nullptr && call_one(*another);
        lock.unlock();
        if (wake) wake_.notify_one();
        opening.job.work(worker);
        lock.lock();
        if (opening.helpers.fetch_sub(1, std::memory_order_release) == 1) left_.notify_all();
    }

    // False: this thread has been replaced.
    bool wait_for_another(std::unique_lock<std::mutex> &lock) {
        const uint64_t seen = opened_.load(std::memory_order_relaxed);
        const auto opened = [&] { return opened_.load(std::memory_order_relaxed) != seen; };
        ++looking_;
        lock.unlock();
        const bool soon = look_out(kNextJob, opened);
        lock.lock();
        --looking_;
        // Who has opened a job since took this one for one that looks out, and called nobody.
        if (soon || opened()) return true;
        ++asleep_;
        while (called_ == 0) {
            wake_.wait(lock);
            if (called_ == 0 && leaving_ > 0) {  // nobody leaves but who was woken: others run where they are wanted
                --leaving_;
                return false;
            }
        }
        if (--called_ == 0) called_at_.store(kNever, std::memory_order_relaxed);
        if (one_that_wants_help() == nullptr || !on_callers_core()) return true;
        lock.unlock();
        const bool replaced = make_helper(callers_core_.load(std::memory_order_relaxed));
        if (!replaced) lock.lock();
        return !replaced;
    }

    // A sleeper is often woken on its waker's core, and left there for milliseconds while others are idle (a virtual machine's
    // idle cores look as if they were taken): there it helps nobody, and mostly it does not even run. A new thread, which
    // is started on another core, takes its place: made by itself, or where it has not come in time by the caller.
    // (Another core by way of the sleeper's affinity, and back, could undo what somebody else sets in between.)
    bool on_callers_core() const {
        const int core = current_core();
        return core >= 0 && core == callers_core_.load(std::memory_order_relaxed);
    }

    std::mutex mutex_;
    std::condition_variable wake_, left_;
    Opening *first_ = nullptr;
    int size_ = 0;     // helpers there are, or are about to be
    int looking_ = 0;  // of them: who look out for the next opening
    int asleep_ = 0;
    int called_ = 0;                                                        // who were woken, and have not come yet
    int leaving_ = 0;                                                       // who have been replaced, and are to end
    alignas(kCacheLine) std::atomic<Clock::time_point> called_at_{kNever};  // the first of `called_`
    alignas(kCacheLine) std::atomic<uint64_t> opened_{0};                   // openings so far
    std::atomic<int> callers_core_{-2};                                     // of the last
};

// Made when it is first wanted and never destroyed: its helpers may be waiting when the process ends. A forked child has
// none of its parent's helpers, and perhaps a mutex that one of them held for ever: it makes a pool of its own.
std::atomic<Pool *> the_pool{nullptr};

#if defined(__unix__) || defined(__APPLE__)
void abandon_pool() { the_pool.store(nullptr, std::memory_order_relaxed); }
const int fork_handler_registered = pthread_atfork(nullptr, nullptr, abandon_pool);
#endif

// nullptr: no memory.
Pool *pool() {
    Pool *current = the_pool.load(std::memory_order_acquire);
    if (current != nullptr) return current;
    Pool *made = new (std::nothrow) Pool;
    if (the_pool.compare_exchange_strong(current, made, std::memory_order_acq_rel)) return made;
    delete made;
    return current;
}

void run(Job &job, int threads) {
    Pool *helpers = pool();
    if (helpers != nullptr)
        helpers->run(job, threads);
    else
        job.work(0);
}

}  // namespace

const Executor executor_pool = {"pool", run};

}  // namespace kldiv
