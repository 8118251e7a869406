// Calls of the core from the threads of somebody else's pool; for the adapters. OpenMP keeps a team of threads for
// every thread that ever opened a parallel region: a pool of 64 threads that took turns would leave 64 teams behind,
// and calls at the same time would run more threads than there are cores. So what is worth more than one thread is
// handed to one thread, which alone has a team.
#pragma once

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "kldiv.h"

namespace kldiv_adapters {

// From here on the core may use a second thread.
constexpr int64_t kWorthATeam = int64_t{1} << 17;

class Team {
public:
    using Run = kldiv_status (*)(const kldiv_problem *, double *);

    // Blocks until the core has run the problem. No Python lock may be held.
    kldiv_status run(Run core, const kldiv_problem &problem) {
        const std::lock_guard<std::mutex> turn(turn_);
        std::unique_lock<std::mutex> lock(mutex_);
        core_ = core;
        problem_ = &problem;
        changed_.notify_all();
        changed_.wait(lock, [this] { return problem_ == nullptr; });
        return status_;
    }

    // One for the process, never destroyed: its thread may be waiting when the process ends.
    static Team &only() {
        static Team &team = *new Team;
        return team;
    }

    bool survived_fork() const { return owner_ == getpid(); }

private:
    Team() {
        std::thread([this] { serve(); }).detach();
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            changed_.wait(lock, [this] { return problem_ != nullptr; });
            status_ = core_(problem_, nullptr);
            problem_ = nullptr;
            changed_.notify_all();
        }
    }

    const pid_t owner_ = getpid();
    std::mutex turn_;  // whose problem it is
    std::mutex mutex_;
    std::condition_variable changed_;
    Run core_ = nullptr;
    const kldiv_problem *problem_ = nullptr;
    kldiv_status status_ = KLDIV_OK;
};

// The problem, of so many elements, by the calling thread or by the team's.
inline kldiv_status run_in_team(Team::Run core, kldiv_problem problem, int64_t elements) {
    if (elements >= kWorthATeam && Team::only().survived_fork()) return Team::only().run(core, problem);
    problem.num_threads = 1;
    return core(&problem, nullptr);
}

}  // namespace kldiv_adapters
