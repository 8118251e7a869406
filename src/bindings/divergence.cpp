// The call, from a vectorcall to a result. First the plainest: two contiguous arrays of one shape and dtype, of which one
// value is wanted. Then all others: a loop nest is made of the arrays' axes, results are made or, where `out` names
// them, checked, and the core runs. Nothing is written before everything is checked, so that whatever is not ours can go
// to Python as it came.
#include "divergence.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "arguments.hpp"
#include "arrays.hpp"
#include "core_call.hpp"
#include "lists.hpp"
#include "weights.hpp"

namespace py = pybind11;

namespace {

using arrays::Fields;
using arrays::Numpy;

// A call that is ours so far. Arrays are borrowed from the caller, who holds them for as long as the call lasts.
struct Call {
    const Function &function;
    Arguments arguments;
    Reduction reduction = Reduction::kMean;
    const Fields *inputs[2] = {};  // y_true, y_pred
    py::object made[2];            // of them, those that came as lists
    kldiv_dtype result = KLDIV_FLOAT32;
    kldiv_problem problem;  // operands and options; its axes are below

    // The nest's axes: batch axes, then class axes. `source`: the axis of the inputs' common shape, below 0: of none.
    int ndim = 0;  // of that shape
    kldiv_axis axes[KLDIV_MAX_AXES];
    int source[KLDIV_MAX_AXES];
    int64_t elements = 1, rows = 1;

    explicit Call(const Function &its_function) : function(its_function) {}

    int batch_ndim() const { return problem.batch_ndim; }
    int nest_ndim() const { return problem.batch_ndim + problem.class_ndim; }
    bool wants_rows() const { return reduction == Reduction::kNone; }
    PyObject *descr() const { return result == KLDIV_FLOAT32 ? function.float32 : function.float64; }
    int64_t item_size() const { return result == KLDIV_FLOAT32 ? 4 : 8; }
};

// ---- What comes in ----

bool read_input(Call &call, int side) {
    PyObject *object = call.arguments.values[side];
    if (!arrays::is_array(object)) return false;
    const Fields &array = arrays::fields(object);
    kldiv_operand &operand = call.problem.operands[side];
    const Fields *pred = call.inputs[KLDIV_Y_PRED];  // which is read first
    if (pred != nullptr && pred->descr == array.descr && arrays::has_flags(array, Numpy::NPY_ARRAY_ALIGNED_))
        operand.dtype = call.problem.operands[KLDIV_Y_PRED].dtype;
    else if (!arrays::read_kernel_dtype(array, operand.dtype))
        return false;
    operand.data = array.data;
    operand.swapped = 0;
    call.inputs[side] = &array;
    return true;
}

bool read_list(Call &call, int side, bool wide) {
    PyObject *&object = call.arguments.values[side];
    call.made[side] = array_of_list(call.function, object, wide);
    if (!call.made[side]) return false;
    object = call.made[side].ptr();
    return read_input(call, side);
}

// A list as y_pred is float64; as y_true it is of y_pred's dtype, as in Keras.
bool read_inputs(Call &call) {
    const kldiv_operand *operands = call.problem.operands;
    if (!read_input(call, KLDIV_Y_PRED) && (!is_list(call.arguments[kYPred]) || !read_list(call, KLDIV_Y_PRED, true)))
        return false;
    const bool pred_is_wide = operands[KLDIV_Y_PRED].dtype == KLDIV_FLOAT64;
    if (!read_input(call, KLDIV_Y_TRUE)) {
        if (!is_list(call.arguments[kYTrue])) return false;
        if (!pred_is_wide && operands[KLDIV_Y_PRED].dtype != KLDIV_FLOAT32) return false;
        if (!read_list(call, KLDIV_Y_TRUE, pred_is_wide)) return false;
    }
    const bool wide = pred_is_wide || operands[KLDIV_Y_TRUE].dtype == KLDIV_FLOAT64;
    call.result = wide ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
    return true;
}

PyObject *scalar(const Function &function, kldiv_dtype dtype, double value) {
    const Numpy &numpy = Numpy::get();
    if (dtype == KLDIV_FLOAT64) return numpy.PyArray_Scalar_(&value, function.float64, nullptr);
    float narrow = static_cast<float>(value);
    return numpy.PyArray_Scalar_(&narrow, function.float32, nullptr);
}

// The exception that a status stands for; nullptr, for the caller to return.
PyObject *raise(kldiv_status status) { return status == KLDIV_NO_MEMORY ? PyErr_NoMemory() : nullptr; }

// ---- Two arrays and not a word more ----

// What hot loops call: small, contiguous, of one shape, and by the descriptor itself float32 or float64. Nothing else is
// read, not even what else there might be to read.
PyObject *answer_bare(const Function &function, PyObject *const *args) {
    constexpr int flags = Numpy::NPY_ARRAY_C_CONTIGUOUS_ | Numpy::NPY_ARRAY_ALIGNED_;
    if (!arrays::is_array(args[0]) || !arrays::is_array(args[1])) return nullptr;
    const Fields &t = arrays::fields(args[0]), &p = arrays::fields(args[1]);
    const bool wide = t.descr == function.float64;
    if (t.descr != p.descr || (!wide && t.descr != function.float32) || t.nd == 0) return nullptr;
    if (!arrays::has_flags(t, flags) || !arrays::has_flags(p, flags) || !arrays::has_shape_of(t, p)) return nullptr;
    int64_t rows = 1;
    for (int i = 0; i + 1 < t.nd; ++i) rows *= t.dimensions[i];
    const int64_t n = rows * t.dimensions[t.nd - 1];
    if (n == 0 || n >= kReleaseGil) return nullptr;
    const kldiv_dtype dtype = wide ? KLDIV_FLOAT64 : KLDIV_FLOAT32;
    double total = 0;
    kldiv_flat(&function.defaults, dtype, t.data, p.data, n, &total);  // so few take no memory
    return scalar(function, dtype, total / static_cast<double>(rows));
}

// ---- The plainest call ----

bool lie_alike(const Fields &a, const Fields &b) {
    const auto both = [&](int flag) { return arrays::has_flags(a, flag) && arrays::has_flags(b, flag); };
    return arrays::has_shape_of(a, b) && (both(Numpy::NPY_ARRAY_C_CONTIGUOUS_) || both(Numpy::NPY_ARRAY_F_CONTIGUOUS_));
}

// A sum over everything, in whatever order: to it rows mean nothing, and so the class axes neither. Not of other forms
// than probabilities, whose numbers are what they are beside the others of their row.
bool wants_a_plain_sum(const Call &call) {
    const Arguments &arguments = call.arguments;
    return !call.wants_rows() && !arguments.has(kSampleWeight) && !arguments.has(kMask) && !arguments.has(kOut) &&
           !arguments.has(kWhere) && are_probs(call.problem.options);
}

bool is_plain(const Call &call) {
    return !call.function.has_gradients && wants_a_plain_sum(call) &&
           call.problem.operands[0].dtype == call.problem.operands[1].dtype && call.inputs[0]->nd > 0 &&
           lie_alike(*call.inputs[0], *call.inputs[1]);
}

// What the sum of rows along all axes but `classes` is divided by.
int64_t plain_divisor(const Call &call, uint64_t classes) {
    const Fields &array = *call.inputs[0];
    if (call.reduction == Reduction::kSum) return 1;
    int64_t rows = 1;
    for (int i = 0; i < array.nd; ++i) {
        if ((classes >> i & 1) != 0) continue;
        rows *= array.dimensions[i];
        if (call.reduction == Reduction::kBatchMean) break;
    }
    return rows;
}

PyObject *run_plain(Call &call, int64_t n) {
    const int ndim = call.inputs[0]->nd;
    uint64_t classes = 0;
    if (!read_axes(call.arguments[kAxis], ndim, classes)) return nullptr;
    double total = 0;
    kldiv_options &options = call.problem.options;
    const kldiv_operand *operands = call.problem.operands;
    const kldiv_status status = call_core(options, n, [&] {
        return kldiv_flat(&options, operands[0].dtype, operands[0].data, operands[1].data, n, &total);
    });
    if (status != KLDIV_OK) return raise(status);
    return scalar(call.function, call.result, total / static_cast<double>(plain_divisor(call, classes)));
}

// ---- The loop nest ----

int64_t extent_of(const Fields &array, int axis, int ndim) {
    const int own = axis - (ndim - array.nd);
    return own < 0 ? 1 : array.dimensions[own];
}

// Keras makes ranks that differ by one equal where the longer one ends in an axis of length 1.
bool has_rank_to_match(const Fields &a, const Fields &b) {
    if (std::abs(a.nd - b.nd) != 1) return false;
    const Fields &longer = a.nd > b.nd ? a : b;
    return longer.dimensions[longer.nd - 1] == 1;
}

// The extent that two broadcast to; -1: they don't.
int64_t common_extent(int64_t a, int64_t b) {
    if (a == b || b == 1) return a;
    return a == 1 ? b : -1;
}

// What stands beside the rows: sample_weight and mask.
struct Beside {
    const Fields *weight = nullptr;
    const Fields *mask = nullptr;

    int ndim() const { return std::max(weight == nullptr ? 0 : weight->nd, mask == nullptr ? 0 : mask->nd); }
    bool any() const { return weight != nullptr || mask != nullptr; }
    // Of the shape that the two broadcast to; -1: they don't.
    int64_t extent(int axis, int of) const {
        const int64_t a = weight == nullptr ? 1 : extent_of(*weight, axis, of);
        const int64_t b = mask == nullptr ? 1 : extent_of(*mask, axis, of);
        return common_extent(a, b);
    }
};

bool read_beside(Call &call, Beside &beside) {
    if (call.arguments.has(kSampleWeight)) {
        PyObject *object = call.arguments[kSampleWeight];
        if (!arrays::is_array(object)) return false;
        beside.weight = &arrays::fields(object);
        kldiv_operand &operand = call.problem.operands[KLDIV_WEIGHT];
        operand.data = beside.weight->data;
        if (!arrays::read_wide_dtype(*beside.weight, operand.dtype)) return false;
    }
    if (call.arguments.has(kMask)) {
        PyObject *object = call.arguments[kMask];
        if (!arrays::is_array(object)) return false;
        beside.mask = &arrays::fields(object);
        if (!arrays::is_mask(*beside.mask)) return false;
        call.problem.operands[KLDIV_MASK].data = beside.mask->data;
    }
    return beside.weight == nullptr || beside.mask == nullptr || !has_rank_to_match(*beside.weight, *beside.mask);
}

// Whether Keras would make the rows' rank and that of what stands beside them equal by an axis of length 1.
bool has_rank_to_match(const Call &call, int rows_ndim, const Beside &beside) {
    const int ndim = beside.ndim();
    if (rows_ndim == ndim + 1) return call.axes[rows_ndim - 1].extent == 1;
    return ndim == rows_ndim + 1 && beside.extent(ndim - 1, ndim) == 1;
}

// The extents of the shape that the inputs broadcast to, and the axes in the core's order: of rows, then of classes.
bool arrange_inputs(Call &call) {
    const Fields &true_ = *call.inputs[0], &pred = *call.inputs[1];
    call.ndim = std::max(true_.nd, pred.nd);
    uint64_t classes = 0;
    if (call.ndim == 0 || has_rank_to_match(true_, pred) || !read_axes(call.arguments[kAxis], call.ndim, classes))
        return false;
    int at = 0;
    for (const bool of_classes : {false, true}) {
        for (int i = 0; i < call.ndim; ++i) {
            if (((classes >> i & 1) != 0) != of_classes) continue;
            const int64_t extent = common_extent(extent_of(true_, i, call.ndim), extent_of(pred, i, call.ndim));
            if (extent < 0) return false;
            call.axes[at] = {extent, {}};
            call.source[at++] = i;
        }
        if (!of_classes) call.problem.batch_ndim = at;
    }
    call.problem.class_ndim = at - call.problem.batch_ndim;
    return true;
}

// Rows repeat where there are more weights than rows, as in Keras; a mask repeats none.
bool attach(Call &call, const Beside &beside) {
    const int rows_ndim = call.batch_ndim();
    if (has_rank_to_match(call, rows_ndim, beside)) return false;
    const int added = beside.weight == nullptr ? 0 : std::max(0, beside.weight->nd - rows_ndim);
    const int ndim = rows_ndim + added;
    if (beside.ndim() > ndim || call.nest_ndim() + added > KLDIV_MAX_AXES) return false;
    std::copy_backward(call.axes, call.axes + call.nest_ndim(), call.axes + call.nest_ndim() + added);
    std::copy_backward(call.source, call.source + call.nest_ndim(), call.source + call.nest_ndim() + added);
    std::fill(call.axes, call.axes + added, kldiv_axis{1, {}});
    std::fill(call.source, call.source + added, -1);
    call.problem.batch_ndim = ndim;
    for (int i = 0; i < ndim; ++i) {
        int64_t &extent = call.axes[i].extent;
        if (beside.weight != nullptr) extent = common_extent(extent, extent_of(*beside.weight, i, ndim));
        if (extent < 0) return false;
        if (beside.mask != nullptr)
            if (const int64_t own = extent_of(*beside.mask, i, ndim); own != 1 && own != extent) return false;
    }
    return true;
}

// How far an array moves along the nest's axes: an input or a gradient, or one that stands beside the rows.
bool move_over_inputs(Call &call, kldiv_role role, const Fields &array) {
    for (int i = 0; i < call.nest_ndim(); ++i) {
        const int own = call.source[i] < 0 ? -1 : call.source[i] - (call.ndim - array.nd);
        if (!arrays::read_stride(array, own, call.axes[i].extent, call.axes[i].strides[role])) return false;
    }
    return true;
}

bool move_over_rows(Call &call, kldiv_role role, const Fields &array) {
    if (array.nd > call.batch_ndim()) return false;
    for (int i = 0; i < call.batch_ndim(); ++i) {
        const int own = i - (call.batch_ndim() - array.nd);
        if (!arrays::read_stride(array, own, call.axes[i].extent, call.axes[i].strides[role])) return false;
    }
    return true;
}

bool count_elements(Call &call) {
    for (int i = 0; i < call.nest_ndim(); ++i) {
        const int64_t extent = call.axes[i].extent;
        const bool may_overflow = (call.elements | extent) >> 31 != 0;  // a division less
        if (may_overflow && extent != 0 && call.elements > INT64_MAX / extent) return false;
        call.elements *= extent;
        if (i < call.batch_ndim()) call.rows *= extent;
    }
    return true;
}

// Which elements there are, of a shape that broadcasts to the inputs'.
bool read_where(Call &call) {
    if (!call.arguments.has(kWhere)) return true;
    PyObject *object = call.arguments[kWhere];
    if (!arrays::is_array(object)) return false;
    const Fields &where = arrays::fields(object);
    if (!arrays::is_mask(where) || where.nd > call.ndim) return false;
    call.problem.operands[KLDIV_WHERE].data = where.data;
    return move_over_inputs(call, KLDIV_WHERE, where);
}

bool arrange(Call &call, Beside &beside) {
    if (!arrange_inputs(call) || !read_beside(call, beside) || (beside.any() && !attach(call, beside))) return false;
    if (beside.weight != nullptr && !move_over_rows(call, KLDIV_WEIGHT, *beside.weight)) return false;
    if (beside.mask != nullptr && !move_over_rows(call, KLDIV_MASK, *beside.mask)) return false;
    call.problem.axes = call.axes;
    return move_over_inputs(call, KLDIV_Y_TRUE, *call.inputs[0]) &&
           move_over_inputs(call, KLDIV_Y_PRED, *call.inputs[1]) && read_where(call) && count_elements(call);
}

// ---- What a mean divides by ----

struct Normaliser {
    double scale = 1;    // Keras gives the rows that a mask keeps the weight all / kept in a mean
    double divisor = 1;  // 0: a mean over nothing, which is 0

    double mean(double total) const { return divisor == 0 ? 0 : total * scale / divisor; }
    double factor() const { return divisor == 0 ? 0 : scale / divisor; }
};

Normaliser normaliser(const Call &call, const Beside &beside) {
    Normaliser found;
    switch (call.reduction) {
        case Reduction::kNone:
        case Reduction::kSum: return found;
        case Reduction::kBatchMean:
            found.divisor = call.batch_ndim() == 0 ? 1 : static_cast<double>(call.axes[0].extent);
            return found;
        case Reduction::kMeanWithWeights:
            found.divisor = call.batch_ndim() != 0 && beside.any() ? sum_of_weights(beside.weight, beside.mask)
                                                                   : static_cast<double>(call.rows);
            return found;
        case Reduction::kMean: break;
    }
    found.divisor = static_cast<double>(call.rows);
    if (beside.mask != nullptr) {
        int64_t all = 1;
        for (int i = 0; i < beside.mask->nd; ++i) all *= beside.mask->dimensions[i];
        const int64_t kept = count_rows(*beside.mask);
        found.scale = kept == 0 ? 0 : static_cast<double>(all) / static_cast<double>(kept);
    }
    return found;
}

// ---- What goes out ----

// Where results are written: what the caller gave, or new. Each is held for the call.
struct Results {
    py::object rows;          // none where one value is wanted
    py::object gradients[2];  // y_true's, y_pred's; none where not wanted
    bool in_a_tuple = false;  // gradients, because `wrt` is a sequence
    int order[2] = {};        // of `wrt`
    int count = 0;            // of gradients
};

bool read_wrt(const Call &call, Results &results) {
    PyObject *wrt = call.arguments[kWrt];
    PyObject *const *names = call.function.names;
    if (wrt == nullptr) wrt = names[KLDIV_Y_PRED];
    results.in_a_tuple = is_list(wrt);
    const Py_ssize_t count = results.in_a_tuple ? PySequence_Fast_GET_SIZE(wrt) : 1;
    if (count < 1 || count > 2) return false;
    for (Py_ssize_t i = 0; i < count; ++i) {
        PyObject *name = results.in_a_tuple ? PySequence_Fast_GET_ITEM(wrt, i) : wrt;
        const int side = name == names[KLDIV_Y_TRUE] ? KLDIV_Y_TRUE : KLDIV_Y_PRED;
        if (name != names[side] || (i == 1 && side == results.order[0])) return false;
        results.order[results.count++] = side;
    }
    return true;
}

bool read_gradients_out(PyObject *out, Results &results) {
    if (results.in_a_tuple != is_list(out)) return false;
    if (!results.in_a_tuple) {
        results.gradients[results.order[0]] = py::reinterpret_borrow<py::object>(out);
        return true;
    }
    if (PySequence_Fast_GET_SIZE(out) != results.count) return false;
    for (int i = 0; i < results.count; ++i)
        results.gradients[results.order[i]] = py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(out, i));
    return true;
}

// `out` is rows, or gradients, or the pair of both that the function returns.
bool read_out(const Call &call, Results &results) {
    if (!call.arguments.has(kOut)) return true;
    PyObject *out = call.arguments[kOut];
    if (!call.function.has_gradients) {
        results.rows = py::reinterpret_borrow<py::object>(out);
        return call.wants_rows();
    }
    const bool is_pair = is_list(out) && PySequence_Fast_GET_SIZE(out) == 2 &&
                         (!results.in_a_tuple || is_list(PySequence_Fast_GET_ITEM(out, 1)));
    if (!is_pair) return read_gradients_out(out, results);
    results.rows = py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(out, 0));
    return call.wants_rows() && read_gradients_out(PySequence_Fast_GET_ITEM(out, 1), results);
}

bool is_result(const Call &call, PyObject *object) {
    kldiv_dtype dtype;
    if (!arrays::is_array(object)) return false;
    const Fields &array = arrays::fields(object);
    return arrays::read_wide_dtype(array, dtype) && dtype == call.result && arrays::is_writable(array);
}

bool has_rows_shape(const Call &call, const Fields &array) {
    if (array.nd != call.batch_ndim()) return false;
    for (int i = 0; i < array.nd; ++i)
        if (array.dimensions[i] != call.axes[i].extent) return false;
    return true;
}

// Whether an array that is written lies apart from all that is read.
bool lies_apart(const Call &call, const arrays::Extent &extent) {
    for (const Argument name : {kYTrue, kYPred, kWhere, kSampleWeight, kMask, kUpstream}) {
        PyObject *read = call.arguments[name];
        if (read == nullptr || read == Py_None || !arrays::is_array(read)) continue;
        if (extent.overlaps(arrays::Extent(arrays::fields(read)))) return false;
    }
    return true;
}

// What the caller gave, before anything is written.
bool check_out(const Call &call, const Results &results) {
    const py::object *given[] = {&results.rows, &results.gradients[0], &results.gradients[1]};
    for (int i = 0; i < 3; ++i) {
        if (!*given[i]) continue;
        if (!is_result(call, given[i]->ptr())) return false;
        const Fields &array = arrays::fields(given[i]->ptr());
        if (i == 0 ? !has_rows_shape(call, array) : !arrays::has_shape_of(array, *call.inputs[i - 1])) return false;
        const arrays::Extent extent(array);
        if (!lies_apart(call, extent)) return false;
        for (int j = 0; j < i; ++j)
            if (*given[j] && extent.overlaps(arrays::Extent(arrays::fields(given[j]->ptr())))) return false;
    }
    return true;
}

// New arrays for what is wanted and was not given. False, with an exception set: there is no memory.
bool make_missing(const Call &call, Results &results) {
    if (call.wants_rows() && !results.rows && call.batch_ndim() > 0) {
        Py_intptr_t shape[arrays::kMaxAxes];
        for (int i = 0; i < call.batch_ndim(); ++i) shape[i] = static_cast<Py_intptr_t>(call.axes[i].extent);
        results.rows = py::reinterpret_steal<py::object>(arrays::empty(call.descr(), call.batch_ndim(), shape));
        if (!results.rows) return false;
    }
    for (int i = 0; i < results.count; ++i) {
        const int side = results.order[i];
        if (results.gradients[side]) continue;
        PyObject *made = arrays::empty_like(*call.inputs[side], call.descr(), call.item_size());
        results.gradients[side] = py::reinterpret_steal<py::object>(made);
        if (made == nullptr) return false;
    }
    return true;
}

// ---- A row's factor ----

// `upstream`, with what a mean divides by: a number, or for rows an array of them.
bool read_upstream(Call &call, const Normaliser &normaliser, double &factor) {
    PyObject *upstream = call.arguments.has(kUpstream) ? call.arguments[kUpstream] : nullptr;
    kldiv_operand &operand = call.problem.operands[KLDIV_UPSTREAM];
    factor = 1;
    if (upstream != nullptr && arrays::is_array(upstream)) {
        const Fields &array = arrays::fields(upstream);
        if (!arrays::read_wide_dtype(array, operand.dtype)) return false;
        operand.data = array.data;
        if (call.wants_rows()) return move_over_rows(call, KLDIV_UPSTREAM, array);
        if (array.nd != 0) return false;
        factor = operand.dtype == KLDIV_FLOAT64 ? *reinterpret_cast<const double *>(array.data)
                                                : static_cast<double>(*reinterpret_cast<const float *>(array.data));
    } else if (upstream != nullptr && !read_number(upstream, factor)) {
        return false;
    }
    factor *= normaliser.factor();
    operand.data = &factor;
    operand.dtype = KLDIV_FLOAT64;
    return true;
}

// ---- The call ----

PyObject *as_result(const Call &call, const Results &results, py::object value) {
    if (!call.function.has_gradients) return value.release().ptr();
    py::object gradients = results.gradients[results.order[0]];
    if (results.in_a_tuple && results.count == 1)
        gradients = py::reinterpret_steal<py::object>(PyTuple_Pack(1, gradients.ptr()));
    if (results.count == 2)
        gradients = py::reinterpret_steal<py::object>(
            PyTuple_Pack(2, gradients.ptr(), results.gradients[results.order[1]].ptr()));
    return gradients ? PyTuple_Pack(2, value.ptr(), gradients.ptr()) : nullptr;
}

// Binds what the core writes: for rows without axes a number of ours, for others and for gradients their arrays.
bool bind_results(Call &call, const Results &results, void *one_row) {
    kldiv_operand *operands = call.problem.operands;
    if (call.wants_rows()) operands[KLDIV_OUT] = {one_row, call.result, 0};
    if (results.rows) {
        const Fields &array = arrays::fields(results.rows.ptr());
        operands[KLDIV_OUT].data = array.data;
        if (!move_over_rows(call, KLDIV_OUT, array)) return false;
    }
    for (int i = 0; i < results.count; ++i) {
        const int side = results.order[i];
        const auto role = static_cast<kldiv_role>(KLDIV_GRAD_Y_TRUE + side);
        const Fields &array = arrays::fields(results.gradients[side].ptr());
        operands[role] = {array.data, call.result, 0};
        if (!move_over_inputs(call, role, array)) return false;
    }
    return true;
}

PyObject *run_arranged(Call &call, const Normaliser &normaliser, Results &results) {
    double total = 0, wide_row = 0;
    float narrow_row = 0;
    const bool is_wide = call.result == KLDIV_FLOAT64;
    if (!bind_results(call, results, is_wide ? static_cast<void *>(&wide_row) : &narrow_row)) return nullptr;
    kldiv_options &options = call.problem.options;
    const kldiv_status status = call_core(options, call.elements, [&] { return kldiv_run(&call.problem, &total); });
    if (status != KLDIV_OK) return raise(status);
    py::object value = results.rows;
    if (!value) {
        const double row = is_wide ? wide_row : static_cast<double>(narrow_row);
        value = py::reinterpret_steal<py::object>(
            scalar(call.function, call.result, call.wants_rows() ? row : normaliser.mean(total)));
    }
    return value ? as_result(call, results, std::move(value)) : nullptr;
}

// The result; nullptr without an exception where the call is not ours, with one where it failed.
PyObject *answer(Call &call) {
    call.problem.options = call.function.defaults;
    if (!read_inputs(call)) return nullptr;
    if (!read_options(call.function, call.arguments, call.problem.options) ||
        !read_reduction(call.function, call.arguments, call.reduction))
        return nullptr;
    if (is_plain(call)) {
        int64_t n = 1;
        for (int i = 0; i < call.inputs[0]->nd; ++i) n *= call.inputs[0]->dimensions[i];
        if (n != 0) return run_plain(call, n);
    }
    for (int role = KLDIV_WHERE; role < KLDIV_OPERANDS; ++role) call.problem.operands[role] = {};
    Beside beside;
    Results results;
    if (!arrange(call, beside)) return nullptr;
    if (call.function.has_gradients && !read_wrt(call, results)) return nullptr;
    if (!read_out(call, results) || !check_out(call, results)) return nullptr;
    const Normaliser divided_by = normaliser(call, beside);
    double factor = 1;
    if (call.function.has_gradients && !read_upstream(call, divided_by, factor)) return nullptr;
    if (!make_missing(call, results)) return nullptr;
    return run_arranged(call, divided_by, results);
}

// What Python calls. Nothing here throws; what the core may throw ends in call_core. The fallback may not be called from
// a function that lets nothing through: at the interpreter's end Python unwinds the stack of a thread that runs its code.
PyObject *divergence(PyObject *self, PyObject *const *args, Py_ssize_t positional, PyObject *keywords) {
    const Function &function = *static_cast<const Function *>(PyModule_GetState(self));
    if (positional == 2 && keywords == nullptr && !function.has_gradients)
        if (PyObject *result = answer_bare(function, args); result != nullptr || PyErr_Occurred() != nullptr)
            return result;
    {
        Call call(function);
        if (read_arguments(function, args, positional, keywords, call.arguments))
            if (PyObject *result = answer(call); result != nullptr || PyErr_Occurred() != nullptr) return result;
    }
    return PyObject_Vectorcall(function.fallback, args, static_cast<size_t>(positional), keywords);
}

// ---- Making a function ----

void end_function(void *self) {
    auto *function = static_cast<Function *>(PyModule_GetState(static_cast<PyObject *>(self)));
    function->release();
    function->~Function();
}

PyModuleDef module_of_a_function = {
    PyModuleDef_HEAD_INIT, "kldiv_fast", nullptr, sizeof(Function), nullptr, nullptr, nullptr, nullptr, end_function};

}  // namespace

py::object make_function(int operation, bool has_gradients, const std::string &name, const std::string &doc,
                         const py::function &fallback) {
    if (operation < 0 || kldiv_operation_name(operation) == nullptr)
        throw py::value_error("there is no such operation");
    const auto self = py::reinterpret_steal<py::object>(PyModule_Create(&module_of_a_function));
    if (!self) throw py::error_already_set();
    auto *function = new (PyModule_GetState(self.ptr())) Function{};
    if (!function->prepare(static_cast<kldiv_operation>(operation), has_gradients, fallback.ptr()))
        throw py::error_already_set();
    function->name = name;
    function->doc = doc;
    const auto call = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(divergence));
    function->method = {function->name.c_str(), call, METH_FASTCALL | METH_KEYWORDS, function->doc.c_str()};
    const py::str module("kldiv_fast");
    auto made = py::reinterpret_steal<py::object>(PyCFunction_NewEx(&function->method, self.ptr(), module.ptr()));
    if (!made) throw py::error_already_set();
    return made;
}
