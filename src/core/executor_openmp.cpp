// A region of OpenMP for each stretch of a job. It ends with its last thread, and OpenMP decides how its threads wait for
// the next one (OMP_WAIT_POLICY). A forked child has none of them, and OpenMP's runtimes don't make new ones: it is serial.
#if defined(_OPENMP)
#include <omp.h>

#include "executor.hpp"
#include "processors.hpp"

namespace kldiv {
namespace {

void run(Job &job, int threads) {
    if (is_forked()) return job.work(0);
#pragma omp parallel num_threads(threads)
    job.work(omp_get_thread_num());
}

}  // namespace

const Executor executor_openmp = {"openmp", run};

}  // namespace kldiv
#endif
