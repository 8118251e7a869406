// kldiv_run as a handler of XLA's typed foreign function interface: buffers in, buffers out. XLA calls it without the
// GIL, on a thread of its own or on the one that called XLA. Every fact that memory safety rests on is checked.
#include "xla.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bindings/interrupt.hpp"
#include "kldiv.h"
#include "xla_abi.hpp"

using namespace xla_abi;

namespace {

Error *fail(const CallFrame *frame, ErrorCode code, const char *message) {
    ErrorArgs args = {sizeof(ErrorArgs), nullptr, message, code};
    return frame->api->create_error(&args);
}

// What we use of the ABI is the same in all versions from 0.1 on, so an older XLA is answered with its own version. (XLA's
// first versions ask without the table of functions that tells theirs.)
int minor_version(const Api *api) {
    if (api == nullptr) return kOldestMinor;
    return api->version.major == kMajor ? std::min(api->version.minor, kMinor) : kMinor;
}

// When a handler is registered XLA calls it once, to ask what it was built for. XLA takes versions from some oldest one
// up to its own, and refuses others.
bool answer_metadata(const CallFrame *frame) {
    for (Extension *extension = frame->extensions; extension != nullptr; extension = extension->next) {
        if (extension->type != kExtensionMetadata) continue;
        Metadata &metadata = *reinterpret_cast<MetadataExtension *>(extension)->metadata;
        metadata.version.major = kMajor;
        metadata.version.minor = minor_version(frame->api);
        metadata.traits = 0;
        return true;
    }
    return false;
}

// The kernel dtypes, as XLA numbers them.
bool read_dtype(DataType type, kldiv_dtype &dtype) {
    switch (type) {
        case kF32: dtype = KLDIV_FLOAT32; return true;
        case kF64: dtype = KLDIV_FLOAT64; return true;
        case kF16: dtype = KLDIV_FLOAT16; return true;
        case kBF16: dtype = KLDIV_BFLOAT16; return true;
    }
    return false;
}

// The value of an attribute of that type, or null.
const void *attribute(const Attrs &attrs, const char *name, AttrType type) {
    const size_t size = std::strlen(name);
    for (int64_t i = 0; i < attrs.size; ++i)
        if (attrs.names[i]->size == size && std::memcmp(attrs.names[i]->data, name, size) == 0)
            return attrs.types[i] == type ? attrs.values[i] : nullptr;
    return nullptr;
}

bool read_number(const Attrs &attrs, const char *name, double &number) {
    const auto *scalar = static_cast<const Scalar *>(attribute(attrs, name, kAttrScalar));
    if (scalar == nullptr || scalar->dtype != kF64) return false;
    std::memcpy(&number, scalar->value, sizeof(number));
    return true;
}

// The place of a string among the names of a table.
template <class Place>
bool read_place(const Attrs &attrs, const char *attribute_name, const char *(*name_of)(int), Place &place) {
    const auto *given = static_cast<const ByteSpan *>(attribute(attrs, attribute_name, kAttrString));
    if (given == nullptr) return false;
    for (int i = 0; const char *name = name_of(i); ++i) {
        if (given->size != std::strlen(name) || std::memcmp(given->data, name, given->size) != 0) continue;
        place = static_cast<Place>(i);
        return true;
    }
    return false;
}

// Of both inputs' elements. Labels are int64 and one for each row, which no buffer here is.
bool read_form(const Attrs &attrs, const char *name, kldiv_form &form) {
    return read_place(attrs, name, kldiv_form_name, form) && form != KLDIV_LABELS;
}

// What is wrong with the attributes, or null.
const char *read_options(const Attrs &attrs, kldiv_options &options) {
    if (!read_place(attrs, "operation", kldiv_operation_name, options.operation))
        return "kldiv_fast: operation must be the name of one";
    if (!read_form(attrs, "true_form", options.y_true_form) || !read_form(attrs, "pred_form", options.y_pred_form))
        return "kldiv_fast: true_form and pred_form must be the names of forms, and not labels";
    if (!read_number(attrs, "temperature", options.temperature) || !std::isfinite(options.temperature) ||
        options.temperature <= 0)
        return "kldiv_fast: temperature must be a finite float64 above 0";
    double epsilon;
    if (!read_number(attrs, "epsilon", epsilon) || !(epsilon < 1))
        return "kldiv_fast: epsilon must be a float64 below 1";
    options.clip = epsilon >= 0;
    options.epsilon = options.clip ? epsilon : 0;
    if (!read_number(attrs, "beta", options.beta) || !(options.beta >= 0 && options.beta <= 1))
        return "kldiv_fast: beta must be a float64 from 0 to 1";
    if (!read_number(attrs, "scale", options.scale) || !std::isfinite(options.scale))
        return "kldiv_fast: scale must be a finite float64";
    return nullptr;
}

const Buffer *argument(const CallFrame *frame, int64_t i) { return static_cast<const Buffer *>(frame->args.values[i]); }
const Buffer *result(const CallFrame *frame, int64_t i) { return static_cast<const Buffer *>(frame->rets.values[i]); }

bool all_buffers(const CallFrame *frame, int64_t args, int64_t rets) {
    return frame->args.size == args && frame->rets.size == rets &&
           std::all_of(frame->args.types, frame->args.types + args, [](ArgType type) { return type == kArgBuffer; }) &&
           std::all_of(frame->rets.types, frame->rets.types + rets, [](RetType type) { return type == kRetBuffer; });
}

bool is_like(const Buffer *buffer, DataType dtype, const int64_t *dims, int64_t rank) {
    return buffer->dtype == dtype && buffer->rank == rank && std::equal(dims, dims + rank, buffer->dims);
}

struct Wanted {
    bool rows;
    bool grad_y_true;
    bool grad_y_pred;
};

Error *run(const CallFrame *frame, Wanted wanted) {
    if (answer_metadata(frame)) return nullptr;
    if (frame->struct_size < sizeof(CallFrame))
        return fail(frame, kInternal, "kldiv_fast: this XLA's call frame is older than any that is known");

    const bool gradients = !wanted.rows;
    if (!all_buffers(frame, gradients ? 3 : 2, wanted.rows + wanted.grad_y_true + wanted.grad_y_pred))
        return fail(frame, kInvalidArgument, "kldiv_fast: wrong number of operands or results");
    const Buffer *y_true = argument(frame, 0), *y_pred = argument(frame, 1);
    const int64_t rank = y_true->rank, *dims = y_true->dims;
    kldiv_dtype dtype;
    if (rank < 1 || !read_dtype(y_true->dtype, dtype) || !is_like(y_pred, y_true->dtype, dims, rank))
        return fail(frame, kInvalidArgument, "kldiv_fast: y_true and y_pred must have one shape and floating dtype");
    const DataType wide = dtype == KLDIV_FLOAT64 ? kF64 : kF32;
    if (gradients && !is_like(argument(frame, 2), wide, dims, rank - 1))
        return fail(frame, kInvalidArgument, "kldiv_fast: upstream must have the rows' shape and dtype");
    for (int64_t i = 0; i < frame->rets.size; ++i)
        if (!is_like(result(frame, i), wide, dims, gradients ? rank : rank - 1))
            return fail(frame, kInvalidArgument, "kldiv_fast: a result has the wrong shape or dtype");
    kldiv_options options = KLDIV_DEFAULTS;
    if (const char *wrong = read_options(frame->attrs, options)) return fail(frame, kInvalidArgument, wrong);
    options.poll = xla_poll();

    int64_t rows = 1;
    for (int64_t i = 0; i + 1 < rank; ++i) rows *= dims[i];
    const int64_t classes = dims[rank - 1];
    int64_t next = 0;
    const auto bind = [&](bool is_wanted) { return is_wanted ? result(frame, next++)->data : nullptr; };
    void *const out = bind(wanted.rows), *const grad_y_true = bind(wanted.grad_y_true),
                *const grad_y_pred = bind(wanted.grad_y_pred);
    const void *upstream = gradients ? argument(frame, 2)->data : nullptr;
    switch (kldiv_rows(&options, dtype, y_true->data, y_pred->data, rows, classes, upstream, out, grad_y_true,
                       grad_y_pred)) {
        case KLDIV_OK: return nullptr;
        case KLDIV_NO_MEMORY: return fail(frame, kResourceExhausted, "kldiv_fast: out of memory");
        case KLDIV_INTERRUPTED: break;
    }
    return fail(frame, kCancelled, "kldiv_fast: interrupted by a signal");
}

}  // namespace

Error *xla_rows(CallFrame *frame) { return run(frame, {true, false, false}); }
Error *xla_grad_y_true(CallFrame *frame) { return run(frame, {false, true, false}); }
Error *xla_grad_y_pred(CallFrame *frame) { return run(frame, {false, false, true}); }
Error *xla_grad_both(CallFrame *frame) { return run(frame, {false, true, true}); }
