// A driver whose instructions are counted: instructions OPERATION ISA DTYPE REPEATS. See instructions.py.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kldiv.h"

namespace {

constexpr int64_t kRows = 2048, kClasses = 10, kElements = kRows * kClasses;

// Value and y_pred's gradient, by the row.
void rows_and_gradient(const void *t, const void *p, kldiv_dtype dtype, int64_t classes, void *out, void *grad) {
    kldiv_rows(dtype, t, p, kElements / classes, classes, 1, 1e-7, nullptr, 1, nullptr, nullptr, out, nullptr, grad);
}

kldiv_problem problem_over(const void *t, const void *p, kldiv_dtype dtype, int64_t size, void *out, bool down) {
    kldiv_problem problem{};
    const kldiv_axis rows = {kRows, kClasses * size, kClasses * size, 0, 0, down ? 0 : 8};
    const kldiv_axis classes = {kClasses, size, size, 0, 0, down ? 8 : 0};
    problem.batch_ndim = problem.class_ndim = 1;
    problem.batch[0] = down ? classes : rows;
    problem.classes[0] = down ? rows : classes;
    problem.y_true = {t, dtype, 0};
    problem.y_pred = {p, dtype, 0};
    problem.out = out;
    problem.out_dtype = KLDIV_FLOAT64;
    problem.clip = 1;
    problem.epsilon = 1e-7;
    problem.num_threads = 1;
    return problem;
}

}  // namespace

int main(int, char **argv) {
    const char *operation = argv[1];
    if (kldiv_select_isa(argv[2]) != 0) return 2;
    const kldiv_dtype dtype = static_cast<kldiv_dtype>(std::atoi(argv[3]));
    const int repeats = std::atoi(argv[4]);
    const int64_t size = dtype == KLDIV_FLOAT64 ? 8 : dtype == KLDIV_FLOAT32 ? 4 : 2;
    // Every element is 0.5 or 0.25: instructions do not depend on what the kernels read.
    const uint16_t half = dtype == KLDIV_BFLOAT16 ? 0x3f00 : 0x3800,
                   quarter = dtype == KLDIV_BFLOAT16 ? 0x3e80 : 0x3400;
    std::vector<char> t(kElements * size), p(kElements * size);
    for (int64_t i = 0; i < kElements; ++i) {
        const float f[2] = {0.5f, 0.25f};
        const double d[2] = {0.5, 0.25};
        const uint16_t h[2] = {half, quarter};
        const void *from = dtype == KLDIV_FLOAT64   ? static_cast<const void *>(d)
                           : dtype == KLDIV_FLOAT32 ? static_cast<const void *>(f)
                                                    : h;
        std::memcpy(&t[i * size], from, size);
        std::memcpy(&p[i * size], static_cast<const char *>(from) + size, size);
    }
    std::vector<double> out(kRows), grad(kElements);
    double total = 0;
    for (int i = 0; i < repeats; ++i) {
        if (std::strcmp(operation, "stream") == 0) {
            kldiv_flat(dtype, t.data(), p.data(), kElements, 1e-7, 1, nullptr, nullptr, &total);
        } else if (std::strcmp(operation, "gradient") == 0) {
            rows_and_gradient(t.data(), p.data(), dtype, kElements / 20, out.data(), grad.data());
        } else if (std::strcmp(operation, "narrow-gradient") == 0) {
            rows_and_gradient(t.data(), p.data(), dtype, kClasses, out.data(), grad.data());
        } else {
            const bool down = std::strcmp(operation, "columns") == 0;
            const kldiv_problem problem = problem_over(t.data(), p.data(), dtype, size, out.data(), down);
            kldiv_run(&problem, &total);
            total = out[0];
        }
    }
    std::printf("%.17g\n", total);
    return 0;
}
