// What this process may use of the machine, and what OpenMP and the system say of it. Included by the executors.
#pragma once

namespace kldiv {

// Processors that the calling thread may use: its affinity (or all of OpenMP's places, where OpenMP binds threads to
// them), and no more than a quota of the control group lasts for. At least 1.
int processors();

// The threads that OpenMP allows the calling thread (OMP_NUM_THREADS, omp_set_num_threads, threadpoolctl). A build without
// OpenMP reads OMP_NUM_THREADS itself, which is how others ask for fewer threads.
int thread_limit();

// Whether a thread that waits may spin: not where that is paid for out of a quota, or OMP_WAIT_POLICY asks for passive
// waiting.
bool may_spin();

// A detached thread that runs `run(argument)`, on the processors that the calling thread may use (or all of OpenMP's places,
// where OpenMP has bound the calling thread to one of them). It starts on any of them but `avoided`, if that can be had;
// with kAnyCore where the system likes. False: no more threads are to be had.
constexpr int kAnyCore = -1;
bool start_thread(void (*run)(void *), void *argument, int avoided);

// Whether this process is a forked child.
bool is_forked();

}  // namespace kldiv
