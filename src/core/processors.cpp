// See processors.hpp.
#include "processors.hpp"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#endif

namespace kldiv {
namespace {

#if defined(__linux__)
using Affinity = cpu_set_t;

#if defined(_OPENMP)
// All processors of OpenMP's places; none where it binds no threads.
Affinity places() {
    Affinity all;
    CPU_ZERO(&all);
    if (omp_get_proc_bind() == omp_proc_bind_false) return all;
    for (int place = 0; place < omp_get_num_places(); ++place) {
        int processors[CPU_SETSIZE];
        const int n = omp_get_place_num_procs(place);
        if (n > CPU_SETSIZE) continue;
        omp_get_place_proc_ids(place, processors);
        for (int i = 0; i < n; ++i)
            if (processors[i] >= 0 && processors[i] < CPU_SETSIZE) CPU_SET(processors[i], &all);
    }
    return all;
}
#endif

// What a new thread has to be told; empty: it inherits what it needs.
Affinity of_a_new_thread(int avoided) {
    Affinity all;
    CPU_ZERO(&all);
#if defined(_OPENMP)
    all = places();
#endif
    if (CPU_COUNT(&all) == 0 && avoided != kAnyCore && sched_getaffinity(0, sizeof all, &all) != 0) CPU_ZERO(&all);
    return all;
}

struct Start {
    void (*run)(void *);
    void *argument;
    Affinity all;
};

void *begin(void *given) {
    const Start start = *static_cast<Start *>(given);
    delete static_cast<Start *>(given);
    if (CPU_COUNT(&start.all) > 0) sched_setaffinity(0, sizeof start.all, &start.all);
    start.run(start.argument);
    return nullptr;
}

// A thread that begins on one of `first`, where the C library can say so before it begins.
bool create(Start *start, const Affinity *first) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
#if defined(__GLIBC__)
    if (first != nullptr) pthread_attr_setaffinity_np(&attributes, sizeof *first, first);
#endif
    pthread_t thread;
    const bool created = pthread_create(&thread, &attributes, begin, start) == 0;
    pthread_attr_destroy(&attributes);
    return created;
}

int in_affinity() {
    Affinity own;
    int n = sched_getaffinity(0, sizeof own, &own) == 0 ? CPU_COUNT(&own) : 0;  // it fails beyond 1,024 processors
#if defined(_OPENMP)
    if (n == 1) {  // perhaps because OpenMP bound this thread
        const Affinity all = places();
        n = std::max(n, CPU_COUNT(&all));
    }
#endif
    return n;
}

// ---- The control group's quota: processor time for each period, of this group and those above it ----

std::string read_line(const std::string &path, const char *starts_with = "") {
    std::string line;
    std::FILE *file = std::fopen(path.c_str(), "r");
    if (file == nullptr) return line;
    for (char buffer[4096]; line.empty() && std::fgets(buffer, sizeof buffer, file) != nullptr;)
        if (std::strstr(buffer, starts_with) != nullptr) line.assign(buffer, std::strcspn(buffer, "\n"));
    std::fclose(file);
    return line;
}

// Processors that one group's quota lasts for; 0: no quota. Version 2 says "QUOTA PERIOD" or "max PERIOD" in one file,
// version 1 has a file for each, and -1 for none.
double quota_of(const std::string &group) {
    const std::string both = read_line(group + "/cpu.max");
    char *end = nullptr;
    double quota = std::strtod(both.c_str(), &end), period = std::strtod(end, nullptr);
    if (both.empty()) {
        quota = std::strtod(read_line(group + "/cpu.cfs_quota_us").c_str(), nullptr);
        period = std::strtod(read_line(group + "/cpu.cfs_period_us").c_str(), nullptr);
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

double smallest_quota(const std::string &root, std::string path) {
    double smallest = 0;
    for (;;) {
        const double quota = quota_of(root + path);
        if (quota > 0 && (smallest == 0 || quota < smallest)) smallest = quota;
        if (path.empty()) return smallest;
        path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
}

// The part of a line of /proc/self/cgroup that names the group: "0::/a/b", "4:cpu,cpuacct:/a/b".
std::string group_in(const std::string &line) {
    const size_t at = line.find(":/");
    return at == std::string::npos || at + 2 == line.size() ? "" : line.substr(at + 1);
}

double find_quota() {
    const std::string first = read_line("/proc/self/cgroup", ":cpu"), unified = read_line("/proc/self/cgroup", "0::");
    const double quota = smallest_quota("/sys/fs/cgroup", group_in(unified));
    return quota > 0 ? quota : smallest_quota("/sys/fs/cgroup/cpu", group_in(first));
}

#else

int in_affinity() { return static_cast<int>(std::thread::hardware_concurrency()); }
double find_quota() { return 0; }

#endif

bool asks_for_passive_waiting() {
    const char *policy = std::getenv("OMP_WAIT_POLICY");
    std::string word = policy != nullptr ? policy : "";
    for (char &c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return word == "passive";
}

// Found when the library is loaded, not at a thread's first call: a fork meanwhile would leave the child waiting for the
// end of what no thread of its own has begun.
const double cpu_quota = find_quota();
const bool spinning_is_free = !asks_for_passive_waiting() && cpu_quota == 0;

std::atomic<bool> forked{false};

#if defined(__unix__) || defined(__APPLE__)
void remember_fork() { forked.store(true, std::memory_order_relaxed); }
const int fork_handler_registered = pthread_atfork(nullptr, nullptr, remember_fork);
#endif

}  // namespace

int processors() {
    int n = in_affinity();
    if (n < 1) n = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    return cpu_quota > 0 ? std::max(1, std::min(n, static_cast<int>(cpu_quota + 0.999))) : n;
}

int thread_limit() {
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    const char *text = std::getenv("OMP_NUM_THREADS");
    const long asked = text != nullptr ? std::strtol(text, nullptr, 10) : 0;
    return asked > 0 ? static_cast<int>(std::min(asked, 4096L)) : processors();
#endif
}

bool may_spin() { return spinning_is_free; }

#if defined(__linux__)

bool start_thread(void (*run)(void *), void *argument, int avoided) {
    const Affinity all = of_a_new_thread(avoided);
    Affinity first = all;
    if (avoided >= 0 && avoided < CPU_SETSIZE) CPU_CLR(avoided, &first);
    Start *start = new (std::nothrow) Start{run, argument, all};
    if (start == nullptr) return false;
    if ((CPU_COUNT(&first) > 0 && create(start, &first)) || create(start, nullptr)) return true;
    delete start;
    return false;
}

#else

bool start_thread(void (*run)(void *), void *argument, int) {
    try {
        std::thread(run, argument).detach();
        return true;
    } catch (const std::exception &) { return false; }
}

#endif

bool is_forked() { return forked.load(std::memory_order_relaxed); }

}  // namespace kldiv
