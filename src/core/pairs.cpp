// Matrices of divergences: every row of one side beside every row of the other.
//
// The fast way. With any distribution c above 0, the center, and g(a, b) = sum a log(a/b) - a + b, which is never negative,
//
//     kl(a, b)       = g(a, c) + g(c, b) - sum (a - c) log(b/c)
//     jeffreys(a, b) = jeffreys(a, c) + jeffreys(b, c) - sum (a - c) log(b/c) - sum log(a/c) (b - c)
//     jsd(a, b)      = beta kl(a, c) + (1 - beta) kl(b, c) - sum m log(m/c),  m = beta a + (1 - beta) b
//
// (kl of rows of one sum: beside it, that of `a` less that of `b`.) All but the sums belong to a row alone, and so do the
// logarithms in the first two: what is left of a pair is a product of matrices, or one logarithm an element. Each part is of
// the size of the divergences from the center, so that a value keeps its digits unless the two are much nearer to each other
// than to it; then, and where anything is not finite, the pair is computed by kldiv_run, from the rows as they came.
//
// Rows of y_pred are prepared a strip at a time, in panels that all tasks read; a task prepares its own rows of y_true.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "arithmetic.hpp"
#include "convert.hpp"
#include "dispatch.hpp"
#include "executor.hpp"
#include "kldiv.h"
#include "operations.hpp"
#include "plan.hpp"

namespace kldiv {
namespace {

constexpr int64_t kTaskRows = 96;      // a multiple of what kernels take together
constexpr int64_t kTaskCols = 512;     // whose sums, beside those rows, stay in the second-level cache
constexpr int64_t kStrip = 4 << 20;    // bytes of prepared rows for each thread, unless one panel has more
constexpr int64_t kLongest = 3 << 14;  // classes of rows that are prepared: longer ones keep a core busy anyway

// ---- What of an operation the fast way adds up ----

struct Preparations {
    Prepared left, right;
};

struct Pairing {
    kldiv_operation operation;
    Paired paired;
    int parts;
    Preparations of[2];
};

constexpr Pairing kPairings[] = {
    {KLDIV_KL, Paired::product, 1, {{Prepared::difference, Prepared::log}}},
    {KLDIV_GENERALIZED_KL, Paired::product, 1, {{Prepared::difference, Prepared::log}}},
    {KLDIV_JEFFREYS,
     Paired::product,
     2,
     {{Prepared::difference, Prepared::log}, {Prepared::log, Prepared::difference}}},
    {KLDIV_JSD, Paired::mixture, 1, {{Prepared::share, Prepared::share}}},
};

// Null: there is no fast way.
const Pairing *pairing_of(const kldiv_pairs_problem &problem) {
    if (problem.center == nullptr) return nullptr;
    for (const Pairing &pairing : kPairings)
        if (pairing.operation == problem.options.operation && pairing.parts * problem.classes <= kLongest)
            return &pairing;
    return nullptr;
}

// ---- A call ----

// What a worker needs for the length of a call.
struct Workspace {
    std::unique_ptr<char[]> left;    // kTaskRows rows of kPairClasses elements, prepared
    std::unique_ptr<double[]> sums;  // of a task's pairs
    std::unique_ptr<double[]> values;
};

struct Call {
    const kldiv_pairs_problem &problem;
    const Pairing *pairing;
    const PairFunctions &functions;
    int64_t size;                    // of an element, prepared
    int64_t panel;                   // bytes of one
    std::unique_ptr<char[]> panels;  // of the strip
    std::unique_ptr<Workspace[]> workers;
    int64_t first, end;  // the strip's rows of y_pred
    std::atomic<bool> out_of_memory{false};

    explicit Call(const kldiv_pairs_problem &of)
        : problem(of),
          pairing(pairing_of(of)),
          functions(of.dtype == KLDIV_FLOAT64 ? current_pair_kernels().float64 : current_pair_kernels().float32),
          size(item_size(of.dtype)),
          panel(0),
          first(0),
          end(of.y_pred.rows) {}

    const char *center_at(int64_t k) const { return static_cast<const char *>(problem.center) + k * size; }
    Preparation preparation(Prepared as, double weight) const {
        const kldiv_options &options = problem.options;
        const bool clipped = options.clip && reads_probs(options);
        return {as, options.pseudocount, clipped ? options.epsilon : 0, clipped ? 1 : HUGE_VAL, weight};
    }
};

Grid grid_at(const kldiv_side &side, int64_t row, int64_t rows, int64_t k, int64_t classes) {
    char *const data = static_cast<char *>(side.rows_of.data) + row * side.row_stride + k * side.class_stride;
    return {data, rows, side.row_stride, classes, side.class_stride};
}

// ---- The fast way ----

// Rows of y_pred, whose elements of one class come to lie side by side.
void prepare_panel(Call &call, int64_t number) {
    const int64_t width = call.functions.right, at = call.first + number * width;
    const int64_t rows = std::min(width, call.end - at), classes = call.problem.classes;
    const kldiv_side &side = call.problem.y_pred;
    double scales[64] = {};
    std::copy_n(side.scales + at, rows, scales);
    char *const begin = call.panels.get() + number * call.panel;
    for (int64_t k = 0; k < classes; k += kPairClasses) {
        const int64_t n = std::min(kPairClasses, classes - k);
        char *const block = begin + k * width * call.size;
        const Grid rows_down = grid_at(side, at, rows, k, n);
        const Grid across = {rows_down.data, n, rows_down.col_stride, rows, rows_down.row_stride};
        pack(side.rows_of, across, call.problem.dtype, block);
        for (int64_t i = n - 1; rows < width && i >= 0; --i) {  // from the end: what is moved is not overwritten
            std::memmove(block + i * width * call.size, block + i * rows * call.size, rows * call.size);
            std::memset(block + (i * width + rows) * call.size, 0, (width - rows) * call.size);
        }
        for (int part = call.pairing->parts - 1; part >= 0; --part) {
            char *const prepared = block + part * classes * width * call.size;
            if (part > 0) std::memcpy(prepared, block, n * width * call.size);
            call.functions.prepare_right(call.preparation(call.pairing->of[part].right, 1 - call.problem.options.beta),
                                         prepared, n, scales, call.center_at(k));
        }
    }
}

// Where the pairs of row i begin that are computed: the rest are the others' mirror images.
int64_t first_of(const Call &call, int64_t i) {
    return call.problem.layout == KLDIV_ALL_PAIRS ? 0 : i + (call.problem.layout == KLDIV_CONDENSED ? 1 : 0);
}

void add_block(Call &call, Workspace &own, int64_t i, int64_t rows, int64_t j, int64_t cols) {
    const kldiv_pairs_problem &problem = call.problem;
    const PairFunctions &functions = call.functions;
    const auto add = functions.add[static_cast<int>(call.pairing->paired)];
    const int64_t panels = ceil_div(cols, functions.right), first_panel = (j - call.first) / functions.right;
    std::fill_n(own.sums.get(), ceil_div(rows, functions.left) * functions.left * kTaskCols, 0.0);
    for (int part = 0; part < call.pairing->parts; ++part)
        for (int64_t k = 0; k < problem.classes; k += kPairClasses) {
            const int64_t n = std::min(kPairClasses, problem.classes - k);
            for (int64_t r = 0; r < rows; ++r)
                pack(problem.y_true.rows_of, grid_at(problem.y_true, i + r, 1, k, n), problem.dtype,
                     own.left.get() + r * kPairClasses * call.size);
            functions.prepare_left(call.preparation(call.pairing->of[part].left, problem.options.beta), own.left.get(),
                                   rows, n, problem.y_true.scales + i, call.center_at(k));
            for (int64_t p = 0; p < panels; ++p) {
                const int64_t col = p * functions.right;
                if (j + col + functions.right <= first_of(call, i)) continue;
                const char *const right = call.panels.get() + (first_panel + p) * call.panel +
                                          (part * problem.classes + k) * functions.right * call.size;
                for (int64_t r = 0; r < rows; r += functions.left)
                    add(own.left.get() + r * kPairClasses * call.size, right, call.center_at(k), n,
                        own.sums.get() + r * kTaskCols + col, kTaskCols);
            }
        }
}

// ---- Values ----

// Of row i and `n` rows from j, from the rows as they came.
void compute_exactly(Call &call, int64_t i, int64_t j, int64_t n, double *values) {
    const kldiv_pairs_problem &problem = call.problem;
    const kldiv_side &t = problem.y_true, &p = problem.y_pred;
    kldiv_axis axes[2] = {{n, {}}, {problem.classes, {}}};
    axes[0].strides[KLDIV_Y_PRED] = p.row_stride;
    axes[0].strides[KLDIV_OUT] = sizeof(double);
    axes[1].strides[KLDIV_Y_TRUE] = t.class_stride;
    axes[1].strides[KLDIV_Y_PRED] = p.class_stride;
    kldiv_problem one = {1, 1, axes, {}, problem.options};
    one.options.num_threads = 1;
    one.options.poll = nullptr;
    one.operands[KLDIV_Y_TRUE] = t.rows_of;
    one.operands[KLDIV_Y_PRED] = p.rows_of;
    one.operands[KLDIV_Y_TRUE].data = grid_at(t, i, 1, 0, 0).data;
    one.operands[KLDIV_Y_PRED].data = grid_at(p, j, 1, 0, 0).data;
    one.operands[KLDIV_OUT] = {values, KLDIV_FLOAT64, 0};
    if (kldiv_run(&one, nullptr) != KLDIV_OK) call.out_of_memory.store(true, std::memory_order_relaxed);
}

// From the sums of row i and `n` rows from j; what needs it is computed exactly.
void finish_sums(Call &call, int64_t i, int64_t j, int64_t n, const double *sums, double *values) {
    const kldiv_side &t = call.problem.y_true, &p = call.problem.y_pred;
    const double base = t.bases[i], least = t.least[i], scale = call.problem.options.scale;
    int64_t good = 0;
    for (int64_t c = 0; c < n; ++c) {
        values[c] = base + p.bases[j + c] - sums[c];
        good += values[c] >= least + p.least[j + c] ? 1 : 0;
    }
    if (good == n) {
        for (int64_t c = 0; c < n; ++c) values[c] *= scale;
        return;
    }
    for (int64_t c = 0; c < n; ++c) {
        const auto is_good = [&](int64_t at) { return values[at] >= least + p.least[j + at]; };
        const int64_t begin = c;
        while (c < n && !is_good(c)) ++c;
        if (c > begin) compute_exactly(call, i, j + begin, c - begin, values + begin);
        if (c < n) values[c] *= scale;
    }
}

// Values of row i and `n` rows from j to their places.
template <class T>
void write_values(const kldiv_pairs_problem &problem, int64_t i, int64_t j, int64_t n, const double *values) {
    const int64_t along = problem.out_strides[1], down = problem.out_strides[0];
    char *const out = static_cast<char *>(problem.out.data);
    const auto write = [&](char *at, int64_t stride) {
        for (int64_t c = 0; c < n; ++c) *reinterpret_cast<T *>(at + c * stride) = static_cast<T>(values[c]);
    };
    if (problem.layout == KLDIV_CONDENSED) {
        const int64_t before = i * (2 * problem.y_true.rows - i - 1) / 2;  // pairs of the rows above
        return write(out + (before + j - i - 1) * along, along);
    }
    char *const row = out + i * down + j * along;
    along == sizeof(T) ? write(row, sizeof(T)) : write(row, along);
    if (problem.layout == KLDIV_MIRRORED) write(out + j * down + i * along, down);
}

void finish_row(Call &call, Workspace &own, int64_t i, int64_t j, int64_t n, const double *sums) {
    double *const values = own.values.get();
    if (call.pairing != nullptr)
        finish_sums(call, i, j, n, sums, values);
    else
        compute_exactly(call, i, j, n, values);
    if (call.problem.root)
        for (int64_t c = 0; c < n; ++c) values[c] = std::sqrt(values[c]);
    if (call.problem.out.dtype == KLDIV_FLOAT32)
        write_values<float>(call.problem, i, j, n, values);
    else
        write_values<double>(call.problem, i, j, n, values);
}

void run_block(void *context, int worker, int64_t task) {
    Call &call = *static_cast<Call *>(context);
    Workspace &own = call.workers[worker];
    const int64_t across = ceil_div(call.end - call.first, kTaskCols);
    const int64_t i = task / across * kTaskRows, j = call.first + task % across * kTaskCols;
    const int64_t rows = std::min(kTaskRows, call.problem.y_true.rows - i), cols = std::min(kTaskCols, call.end - j);
    if (j + cols <= first_of(call, i)) return;
    if (call.pairing != nullptr) add_block(call, own, i, rows, j, cols);
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t skipped = std::max<int64_t>(0, first_of(call, i + r) - j);
        if (skipped < cols)
            finish_row(call, own, i + r, j + skipped, cols - skipped, own.sums.get() + r * kTaskCols + skipped);
    }
}

// ---- Strips ----

// Room for a strip; how many rows of y_pred it holds.
int64_t make_room(Call &call, int threads) {
    const int64_t all = call.problem.y_pred.rows, width = call.functions.right;
    if (call.pairing == nullptr) return all;
    call.panel = std::max<int64_t>(1, call.pairing->parts * call.problem.classes * width * call.size);
    const int64_t panels = std::min(ceil_div(all, width), std::max<int64_t>(1, kStrip * threads / call.panel));
    call.panels.reset(new char[panels * call.panel]);
    return panels * width;
}

kldiv_status run_pairs(Call &call, int threads) {
    const kldiv_pairs_problem &problem = call.problem;
    const int64_t strip = make_room(call, threads);
    call.workers.reset(new Workspace[threads]);
    for (int w = 0; w < threads; ++w) {
        Workspace &own = call.workers[w];
        const int64_t rows =
            std::min(kTaskRows, ceil_div(problem.y_true.rows, call.functions.left) * call.functions.left);
        own.values.reset(new double[kTaskCols]);
        own.sums.reset(new double[rows * kTaskCols]());
        if (call.pairing != nullptr) own.left.reset(new char[rows * kPairClasses * call.size]());
    }
    Poll poll(problem.options.poll, problem.options.poll_data);
    const auto part = [&](int64_t row) { return static_cast<double>(row) / static_cast<double>(problem.y_pred.rows); };
    for (int64_t at = 0; at < problem.y_pred.rows; at += strip) {
        call.first = at, call.end = std::min(at + strip, problem.y_pred.rows);
        poll.cover(part(call.first), part(call.end));
        kldiv_status status = KLDIV_OK;
        if (call.pairing != nullptr)
            status = run_tasks(
                threads, ceil_div(call.end - at, call.functions.right), poll,
                [](void *context, int, int64_t task) { prepare_panel(*static_cast<Call *>(context), task); }, &call);
        const int64_t tasks = ceil_div(problem.y_true.rows, kTaskRows) * ceil_div(call.end - at, kTaskCols);
        if (status == KLDIV_OK) status = run_tasks(threads, tasks, poll, run_block, &call);
        if (status != KLDIV_OK) return status;
    }
    return call.out_of_memory ? KLDIV_NO_MEMORY : KLDIV_OK;
}

}  // namespace
}  // namespace kldiv

using namespace kldiv;

kldiv_status kldiv_pairs(const kldiv_pairs_problem *problem) {
    const PlainArithmetic plain;
    if (problem->y_true.rows == 0 || problem->y_pred.rows == 0) return KLDIV_OK;
    const double elements = static_cast<double>(problem->y_true.rows) * static_cast<double>(problem->y_pred.rows) *
                            static_cast<double>(std::max<int64_t>(1, problem->classes));
    const int64_t most = static_cast<int64_t>(std::min(elements, 0x1p62));
    try {
        Call call(*problem);
        return run_pairs(call, choose_threads(problem->options.num_threads, most, most));
    } catch (const std::bad_alloc &) { return KLDIV_NO_MEMORY; }
}
