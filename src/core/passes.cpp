// See passes.hpp.
#include "passes.hpp"

#include <algorithm>
#include <memory>
#include <new>

#include "convert.hpp"
#include "kernel.hpp"
#include "nest.hpp"
#include "operations.hpp"

namespace kldiv {
namespace {

constexpr int64_t kSummed = int64_t{1} << 18;  // elements of a gradient that are computed before they are added up
constexpr int64_t kSums = int64_t{1} << 16;    // sums kept at a time

// ---- Layouts ----

// Along an axis that the inputs go backwards along, a plan goes forwards.
kldiv_axis forwards(kldiv_axis axis) {
    if (axis.strides[KLDIV_Y_TRUE] <= 0 && axis.strides[KLDIV_Y_PRED] <= 0)
        for (int64_t &stride : axis.strides) stride = -stride;
    return axis;
}

// operand k moves from element to element, or there is none.
bool is_dense(const kldiv_problem &problem, const kldiv_axis &axis, kldiv_role k) {
    return !has(problem, k) || axis.strides[k] == item_size(problem.operands[k].dtype);
}

bool goes_on(const kldiv_problem &problem, const kldiv_axis &outer, const kldiv_axis &inner, kldiv_role k) {
    return !has(problem, k) || continues(outer, inner, k);
}

bool in_kernel_format(const kldiv_problem &problem, kldiv_role grad) {
    const kldiv_operand &t = problem.operands[KLDIV_Y_TRUE], &p = problem.operands[KLDIV_Y_PRED];
    if (!has(problem, grad) || t.dtype != p.dtype || t.dtype >= kKernelDtypes) return true;
    return problem.operands[grad].dtype == (t.dtype == KLDIV_FLOAT64 ? KLDIV_FLOAT64 : KLDIV_FLOAT32);
}

bool pair_follows(const kldiv_problem &problem, const kldiv_axis &outer, const kldiv_axis &inner) {
    for (const kldiv_role k : kInputs)
        if (!continues(outer, inner, k)) return true;
    for (const kldiv_role k : kGradients)
        if (!goes_on(problem, outer, inner, k)) return false;
    return true;
}

// ---- Sums ----

bool is_repeated(const kldiv_axis &axis, kldiv_role grad) { return axis.extent > 1 && axis.strides[grad] == 0; }

// A gradient's problem whose axes can be cut: what is left of the whole, and where its operands start.
struct Part {
    kldiv_problem problem;
    kldiv_axis axes[KLDIV_MAX_AXES] = {};

    explicit Part(const kldiv_problem &whole) : problem(whole) {
        std::copy_n(whole.axes, ndim(), axes);
        problem.axes = axes;
    }
    Part(const Part &other) : Part(other.problem) {}
    Part &operator=(const Part &) = delete;

    int ndim() const { return problem.batch_ndim + problem.class_ndim; }
    int64_t size() const {
        return size_of([](const kldiv_axis &) { return true; });
    }
    template <class Predicate>
    int64_t size_of(const Predicate &counts) const {
        int64_t n = 1;
        for (int i = 0; i < ndim(); ++i) n *= counts(axes[i]) ? axes[i].extent : 1;
        return n;
    }
    // Rows that have a state stay whole.
    int cuttable() const { return is_rowwise(problem.options) ? problem.batch_ndim : ndim(); }
    // Elements along the axes that can't be cut, of those that `counts` names.
    template <class Predicate>
    int64_t uncuttable(const Predicate &counts) const {
        int64_t n = 1;
        for (int i = cuttable(); i < ndim(); ++i) n *= counts(axes[i]) ? axes[i].extent : 1;
        return n;
    }
    // The longest axis of those that `counts` names and that can be cut, or -1.
    template <class Predicate>
    int longest(const Predicate &counts) const {
        int found = -1;
        for (int i = 0; i < cuttable(); ++i)
            if (counts(axes[i]) && (found < 0 || axes[i].extent > axes[found].extent)) found = i;
        return found;
    }
    Part cut(int axis, int64_t from, int64_t count) const {
        Part part(*this);
        for (int k = 0; k < KLDIV_OPERANDS; ++k) {
            void *&data = part.problem.operands[k].data;
            if (data != nullptr) data = static_cast<char *>(data) + from * axes[axis].strides[k];
        }
        part.axes[axis].extent = std::min(count, axes[axis].extent - from);
        return part;
    }
    // visit(part) for parts of at most `most` elements along the axes that `counts` names, as far as they can be cut.
    template <class Predicate, class Visit>
    kldiv_status each(int64_t most, const Predicate &counts, const Visit &visit) const {
        const int64_t n = size_of(counts);
        const int axis = n <= most ? -1 : longest(counts);
        if (axis < 0 || axes[axis].extent == 1) return visit(*this);
        const int64_t step = std::max<int64_t>(1, axes[axis].extent * most / n);
        for (int64_t from = 0; from < axes[axis].extent; from += step) {
            const kldiv_status status = cut(axis, from, step).each(most, counts, visit);
            if (status != KLDIV_OK) return status;
        }
        return KLDIV_OK;
    }
};

struct Summing {
    kldiv_role grad;
    kldiv_status (*run)(const kldiv_problem &);
    std::unique_ptr<double[]> sums, terms;  // of the gradient's elements; of all elements, in the gradient's dtype
};

// Strides, in elements, of an array that is dense along the axes that `counts` names and stands still along others.
template <class Predicate>
void dense_strides(const Part &part, const Predicate &counts, int64_t *strides) {
    int64_t next = 1;
    for (int i = part.ndim() - 1; i >= 0; --i) {
        strides[i] = counts(part.axes[i]) ? next : 0;
        next *= counts(part.axes[i]) ? part.axes[i].extent : 1;
    }
}

// visit(index of the whole nest, index of the kept axes) along the last axis, for each row of it: two strided runs.
template <class Visit>
void walk(const Part &part, const int64_t *kept, const Visit &visit) {
    const int last = part.ndim() - 1;
    const int64_t n = part.axes[last].extent, rows = part.size() / n;
    for (int64_t row = 0; row < rows; ++row) {
        int64_t at = 0, rest = row;
        for (int i = last - 1; i >= 0; --i) {
            at += rest % part.axes[i].extent * kept[i];
            rest /= part.axes[i].extent;
        }
        visit(row * n, at, n);
    }
}

template <class Term>
void add_terms(const Part &part, const int64_t *kept, const Term *terms, double *sums) {
    const bool along = kept[part.ndim() - 1] != 0;
    walk(part, kept, [&](int64_t from, int64_t to, int64_t n) {
        if (along) {
            for (int64_t i = 0; i < n; ++i) sums[to + i] += static_cast<double>(terms[from + i]);
            return;
        }
        double lanes[4] = {};
        for (int64_t i = 0; i < n; ++i) lanes[i % 4] += static_cast<double>(terms[from + i]);
        sums[to] += (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    });
}

// sums += the terms of one part, whose first element is that of the kept axes' block.
kldiv_status add_part(const Part &part, const int64_t *kept, Summing &summing) {
    Part whole(part);
    kldiv_operand &grad = whole.problem.operands[summing.grad];
    int64_t dense[KLDIV_MAX_AXES];
    dense_strides(part, [](const kldiv_axis &) { return true; }, dense);
    for (int i = 0; i < part.ndim(); ++i) whole.axes[i].strides[summing.grad] = dense[i] * item_size(grad.dtype);
    grad.data = summing.terms.get();
    const kldiv_status status = summing.run(whole.problem);
    if (status != KLDIV_OK) return status;
    if (grad.dtype == KLDIV_FLOAT32)
        add_terms(part, kept, reinterpret_cast<const float *>(summing.terms.get()), summing.sums.get());
    else
        add_terms(part, kept, summing.terms.get(), summing.sums.get());
    return KLDIV_OK;
}

template <class Element>
void write(const Part &part, kldiv_role grad, const int64_t *kept, const double *sums) {
    char *data = static_cast<char *>(part.problem.operands[grad].data);
    const int last = part.ndim() - 1;
    walk(part, kept, [&](int64_t, int64_t from, int64_t n) {
        int64_t offset = 0, rest = from;
        for (int i = 0; i < last; ++i) {
            if (kept[i] == 0) continue;
            offset += rest / kept[i] * part.axes[i].strides[grad];
            rest %= kept[i];
        }
        for (int64_t i = 0; i < n; ++i)
            *reinterpret_cast<Element *>(data + offset + i * part.axes[last].strides[grad]) =
                static_cast<Element>(sums[from + i]);
    });
}

kldiv_status sum_block(const Part &block, Summing &summing) {
    const auto is_kept = [&](const kldiv_axis &axis) { return !is_repeated(axis, summing.grad); };
    const int64_t n = block.size_of(is_kept);
    std::fill_n(summing.sums.get(), n, 0.0);
    int64_t kept[KLDIV_MAX_AXES];
    dense_strides(block, is_kept, kept);
    // Kept axes stay whole where they can, so that a part's sums are those of the block.
    const auto repeated = [&](const kldiv_axis &axis) { return is_repeated(axis, summing.grad); };
    const kldiv_status status = block.each(std::max<int64_t>(1, kSummed / n), repeated,
                                           [&](const Part &part) { return add_part(part, kept, summing); });
    if (status != KLDIV_OK) return status;
    Part result(block);
    for (int i = 0; i < result.ndim(); ++i)
        if (!is_kept(result.axes[i])) result.axes[i].extent = 1;
    block.problem.operands[summing.grad].dtype == KLDIV_FLOAT32
        ? write<float>(result, summing.grad, kept, summing.sums.get())
        : write<double>(result, summing.grad, kept, summing.sums.get());
    return KLDIV_OK;
}

}  // namespace

bool gradients_follow_inputs(const kldiv_problem &problem) {
    // With rows added up as they come, factors that differ would keep them apart.
    if (!keeps_rows(problem) && !has_one_upstream(problem)) return false;
    if (!in_kernel_format(problem, KLDIV_GRAD_Y_TRUE) || !in_kernel_format(problem, KLDIV_GRAD_Y_PRED)) return false;
    const int ndim = problem.batch_ndim + problem.class_ndim;
    for (int i = 0; i < ndim; ++i) {
        const kldiv_axis axis = forwards(problem.axes[i]);
        if (axis.extent == 1) continue;
        const bool inputs = is_dense(problem, axis, KLDIV_Y_TRUE) && is_dense(problem, axis, KLDIV_Y_PRED);
        for (const kldiv_role k : kGradients)
            if (inputs && !is_dense(problem, axis, k)) return false;
        for (int j = 0; j < ndim; ++j) {
            if (i != j && problem.axes[j].extent != 1 && !pair_follows(problem, axis, forwards(problem.axes[j])))
                return false;
        }
    }
    return true;
}

bool is_summed(const kldiv_problem &problem, kldiv_role grad) {
    return has(problem, grad) && std::any_of(problem.axes, problem.axes + problem.batch_ndim + problem.class_ndim,
                                             [grad](const kldiv_axis &axis) { return is_repeated(axis, grad); });
}

kldiv_status sum_gradient(const kldiv_problem &problem, kldiv_role grad, kldiv_status (*run)(const kldiv_problem &)) {
    const Part whole(problem);
    const auto is_kept = [grad](const kldiv_axis &axis) { return !is_repeated(axis, grad); };
    const auto repeated = [grad](const kldiv_axis &axis) { return is_repeated(axis, grad); };
    const int64_t kept_row = whole.uncuttable(is_kept), repeated_row = whole.uncuttable(repeated);
    const int64_t most = std::max<int64_t>(1, kSums / repeated_row);
    const int64_t sums = std::min(std::max(most, kept_row), whole.size_of(is_kept)),
                  terms = std::min(whole.size(), std::max({kSummed, kSums, kept_row * repeated_row}));
    Summing summing = {grad, run, std::unique_ptr<double[]>(new (std::nothrow) double[sums]),
                       std::unique_ptr<double[]>(new (std::nothrow) double[terms])};
    if (!summing.sums || !summing.terms) return KLDIV_NO_MEMORY;
    return whole.each(most, is_kept, [&](const Part &block) { return sum_block(block, summing); });
}

}  // namespace kldiv
