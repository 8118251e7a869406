// How far one language model is from another: two rows of logits at a time, each row by one thread.
//
// A row's figures are made of sums about the true log-ratio (loops/fidelity.hpp), never of differences of rounded
// log-softmaxes. What the center c is off by its rounding, y = Psi - E tells: as in rows/kl_logits.hpp
//
//     KL = Psi - (y - log(1 + y))     and the other way round the same of -y / (1 + y)
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "arithmetic.hpp"
#include "dispatch.hpp"
#include "executor.hpp"
#include "kldiv.h"
#include "plan.hpp"

namespace kldiv {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kLargest = 1.0 / 128;      // psi for which y matters
constexpr float kLeastOfCodes = -16;        // llama.cpp adds up where log p is above it
constexpr int64_t kTaskElements = 1 << 16;  // of short rows several make a task

struct Call {
    const kldiv_fidelity_problem &problem;
    const FidelityKernels &kernels;
    float inverse;
    int64_t segments, task_rows;
    std::unique_ptr<float[]> maxima;  // of both sides' segments, for each worker

    explicit Call(const kldiv_fidelity_problem &of)
        : problem(of),
          kernels(current_fidelity_kernels()),
          inverse(static_cast<float>(1 / of.options.temperature)),
          segments(ceil_div(of.classes, kSegment)),
          task_rows(std::max<int64_t>(1, kTaskElements / of.classes)) {}
};

bool has_codes(const kldiv_logits &side) { return side.dtype == KLDIV_UINT16; }

LogitsRow row_at(const kldiv_logits &side, int64_t r) {
    LogitsRow row = {static_cast<const char *>(side.data) + r * side.row_stride, side.dtype, 1, 0};
    if (has_codes(side)) {
        std::memcpy(&row.scale, row.data, sizeof row.scale);
        std::memcpy(&row.least, row.data + sizeof row.scale, sizeof row.least);
        row.data += sizeof row.scale + sizeof row.least;
    }
    return row;
}

// ---- The likeliest classes ----

// The five greatest of what is offered in order: of equal ones the first.
struct Five {
    float values[5];
    int64_t places[5];

    Five() {
        std::fill_n(values, 5, -std::numeric_limits<float>::infinity());
        std::fill_n(places, 5, -1);
    }
    void offer(float value, int64_t place) {
        if (!(value > values[4])) return;
        int i = 4;
        for (; i > 0 && value > values[i - 1]; --i) values[i] = values[i - 1], places[i] = places[i - 1];
        values[i] = value, places[i] = place;
    }
    bool has(int64_t place) const { return std::find(places, places + 5, place) != places + 5; }
};

// They lie in the five segments whose maxima are the greatest.
Five likeliest(const Call &call, const LogitsRow &row, const float *maxima) {
    Five segments, classes;
    for (int64_t s = 0; s < call.segments; ++s) segments.offer(maxima[s], s);
    std::sort(segments.places, segments.places + 5);
    alignas(kCacheLine) float widened[kSegment];
    for (const int64_t s : segments.places) {
        if (s < 0) continue;
        const int64_t first = s * kSegment, n = std::min(kSegment, call.problem.classes - first);
        const float *const x = call.kernels.read(row, first, n, widened);
        for (int64_t i = 0; i < n; ++i) classes.offer(x[i], first + i);
    }
    return classes;
}

// ---- A row's figures ----

// One side of a row: log p = (x - high) / T - log_sum, and what is known of it.
struct Side {
    LogitsRow row;
    double high, sum, log_sum;
    Five five;
    bool is_valid;

    Side(const Call &call, const kldiv_logits &of, int64_t r, float *maxima) : row(row_at(of, r)) {
        const LogitsSum added = call.kernels.add_up(row, call.problem.classes, call.inverse, maxima);
        five = likeliest(call, row, maxima);
        high = has_codes(of) ? 0 : added.high;
        sum = has_codes(of) ? 1 : added.sum;
        log_sum = std::log(sum);
        is_valid = sum > 0 && std::isfinite(sum) && std::isfinite(row.scale) && std::isfinite(row.least);
    }
    // Times T: what is to be taken from an element.
    double normaliser(const Call &call) const { return high + log_sum / static_cast<double>(call.inverse); }
    double log_probability(const Call &call, double x) const {
        return (x - high) * static_cast<double>(call.inverse) - log_sum;
    }
    double log_probability_of(const Call &call, int64_t place) const {
        alignas(kCacheLine) float widened[kSegment];
        return log_probability(call, static_cast<double>(call.kernels.read(row, place, 1, widened)[0]));
    }
};

double gap_of(double y) { return y - std::log1p(y); }

void write_divergences(const Call &call, const Side &a, const Side &b, double *out) {
    const bool base_codes = has_codes(call.problem.base), any_codes = base_codes || has_codes(call.problem.other);
    const double exact_center = a.normaliser(call) - b.normaliser(call);
    const float center = static_cast<float>(exact_center);
    const float shift = static_cast<float>(b.high - a.high + static_cast<double>(center));
    const OneScale scale = {static_cast<float>(a.high),
                            static_cast<float>(b.high),
                            shift,
                            center,
                            call.inverse,
                            base_codes ? kLeastOfCodes : -std::numeric_limits<float>::infinity()};
    const FidelitySums sums = call.kernels.compare(a.row, b.row, call.problem.classes, scale);
    const bool lacks_b = sums.high_x == kInfinite, lacks_a = sums.low_x == -kInfinite;
    const double psi = sums.psi / a.sum, mean = sums.forward / a.sum;
    // Of larger ones the difference has more error than y is worth.
    const double y = any_codes || lacks_a || lacks_b || psi > kLargest ? 0 : psi - mean;
    const double off = (exact_center - static_cast<double>(center)) * static_cast<double>(call.inverse);
    const double forward = base_codes ? mean - off : std::max(0.0, psi - gap_of(y));
    const double reverse = std::max(0.0, sums.back / (a.sum * (1 + y)) - gap_of(-y / (1 + y)));
    out[KLDIV_FORWARD] = lacks_b ? kInfinite : forward;
    out[KLDIV_REVERSE] = lacks_a ? kInfinite : reverse;
    out[KLDIV_HALF_JSD] = sums.jsd / a.sum;
}

void write_row(const Call &call, int64_t r, float *maxima) {
    const kldiv_fidelity_problem &problem = call.problem;
    double *const out = problem.out + r * KLDIV_FIGURE_COUNT;
    std::fill_n(out, KLDIV_FIGURE_COUNT, std::numeric_limits<double>::quiet_NaN());
    const Side a(call, problem.base, r, maxima), b(call, problem.other, r, maxima + call.segments);
    if (!a.is_valid || !b.is_valid) return;
    write_divergences(call, a, b, out);
    const int64_t target = problem.targets == nullptr ? -1 : problem.targets[r];
    if (target >= 0) {
        out[KLDIV_TARGET] = a.log_probability_of(call, target);
        out[KLDIV_TARGET_OF] = b.log_probability_of(call, target);
    }
    out[KLDIV_FIRST] = static_cast<double>(a.five.places[0]);
    out[KLDIV_FIRST_OF] = static_cast<double>(b.five.places[0]);
    out[KLDIV_TOP] = std::exp(a.log_probability(call, static_cast<double>(a.five.values[0])));
    int shared = 0;
    for (const int64_t place : a.five.places) shared += place >= 0 && b.five.has(place) ? 1 : 0;
    out[KLDIV_SHARED] = shared;
}

void run_rows(void *context, int worker, int64_t task) {
    const Call &call = *static_cast<Call *>(context);
    const int64_t first = task * call.task_rows, end = std::min(first + call.task_rows, call.problem.rows);
    for (int64_t r = first; r < end; ++r) write_row(call, r, call.maxima.get() + worker * 2 * call.segments);
}

}  // namespace
}  // namespace kldiv

using namespace kldiv;

kldiv_status kldiv_fidelity(const kldiv_fidelity_problem *problem) {
    const PlainArithmetic plain;
    if (problem->rows == 0) return KLDIV_OK;
    try {
        Call call(*problem);
        const int64_t tasks = ceil_div(problem->rows, call.task_rows);
        const int threads = choose_threads(problem->options.num_threads, problem->rows * problem->classes, tasks);
        call.maxima.reset(new float[threads * 2 * call.segments]);
        Poll poll(problem->options.poll, problem->options.poll_data);
        return run_tasks(threads, tasks, poll, run_rows, &call);
    } catch (const std::bad_alloc &) { return KLDIV_NO_MEMORY; }
}
