// Both executors, with more threads than there may be processors: every task runs once, workers have numbers of their own,
// several callers at once are served, a poll stops a job while nobody is at work, and a forked child works. ThreadSanitizer
// watches it too. Prints what failed; the status says whether anything did.
#include "executor.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <thread>
#include <vector>

#include "processors.hpp"

using namespace kldiv;

namespace {

constexpr int kThreads = 8;
constexpr int64_t kTasks = 1000;
int failures = 0;

void expect(bool holds, const char *executor, const char *what) {
    if (holds) return;
    std::printf("%s: %s\n", executor, what);
    ++failures;
}

// What one job's tasks leave behind. A worker's own sum is written without a lock: two threads of one number would race.
struct Tally {
    std::vector<int> runs = std::vector<int>(kTasks);
    int64_t sums[kThreads] = {};
    std::atomic<int> at_work{0};
    bool polled_at_work = false;
    int polls_left = -1;
    double last_done = 0;

    void restart(int polls) {
        std::fill(runs.begin(), runs.end(), 0);
        std::fill(std::begin(sums), std::end(sums), 0);
        last_done = 0;
        polls_left = polls;
    }
    static void run(void *context, int worker, int64_t task) {
        Tally &tally = *static_cast<Tally *>(context);
        tally.at_work.fetch_add(1);
        ++tally.runs[task];
        volatile int64_t &sum = tally.sums[worker];
        for (int i = 0; i < 2000; ++i) sum = sum + 1;
        tally.at_work.fetch_sub(1);
    }
    static int poll(void *context, double done) {
        Tally &tally = *static_cast<Tally *>(context);
        tally.polled_at_work |= tally.at_work.load() != 0;
        tally.polled_at_work |= done < tally.last_done || done > 1;
        tally.last_done = done;
        return tally.polls_left > 0 && --tally.polls_left == 0;
    }
    bool all_once() const {
        int64_t sum = 0;
        for (const int64_t part : sums) sum += part;
        for (const int count : runs)
            if (count != 1) return false;
        return sum == 2000 * kTasks;
    }
};

bool right(int threads) {
    Tally tally;
    Poll poll(Tally::poll, &tally);
    return run_tasks(threads, kTasks, poll, Tally::run, &tally) == KLDIV_OK && tally.all_once() &&
           !tally.polled_at_work;
}

// Jobs of one call, until the poll was asked in the middle of one.
bool stops() {
    Tally tally;
    Poll poll(Tally::poll, &tally);
    for (int i = 0; i < 10000; ++i) {
        tally.restart(1);
        const kldiv_status status = run_tasks(kThreads, kTasks, poll, Tally::run, &tally);
        if (status == KLDIV_INTERRUPTED) return !tally.polled_at_work && tally.last_done > 0 && tally.last_done < 1;
        if (!tally.all_once()) return false;
    }
    return false;
}

bool right_from_many_callers() {
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int k = 0; k < 4; ++k)
        callers.emplace_back([&wrong] {
            for (int i = 0; i < 3; ++i) wrong += !right(kThreads);
        });
    for (std::thread &caller : callers) caller.join();
    return wrong == 0;
}

bool right_in_a_child() {
    const pid_t child = fork();
    if (child == 0) _exit(is_forked() && right(2) && right(kThreads) ? 0 : 1);
    int status = 1;
    return waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace

// With an argument it doesn't fork: neither an emulator of a user's programs nor ThreadSanitizer follows a fork of a process
// with threads.
int main(int argc, char **) {
    for (int i = 0; const char *name = kldiv_executor_name(i); ++i) {
        expect(kldiv_select_executor(name) == 0, name, "can't be selected");
        expect(right(1), name, "one thread is wrong");
        expect(right(kThreads), name, "many threads are wrong");
        expect(right_from_many_callers(), name, "many callers are wrong");
        expect(stops(), name, "the poll does not stop a job, or while somebody is at work");
        if (argc == 1) expect(right_in_a_child(), name, "a forked child is wrong");
        expect(right(kThreads), name, "many threads are wrong after a fork");
    }
    expect(kldiv_select_executor("none") == -1, "none", "can be selected");
    return failures != 0;
}
