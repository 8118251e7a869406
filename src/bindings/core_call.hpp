// A call of the core from Python: without the GIL where the work is worth handing it over, and with nothing thrown.
#pragma once
#include <cstdint>

#include "interrupt.hpp"
#include "kldiv.h"

// Below this many elements (some 4 us of work) handing the GIL over costs more than it gives.
constexpr int64_t kReleaseGil = int64_t{1} << 15;

// call(), which reads `options`. What it may throw is want of memory. KLDIV_INTERRUPTED comes with an exception set.
template <class Call>
kldiv_status call_core(kldiv_options &options, int64_t elements, const Call &call,
                       PyObject *progress = nullptr) noexcept {
    const auto guarded = [&] {
        try {
            return call();
        } catch (...) { return KLDIV_NO_MEMORY; }
    };
    if (elements < kReleaseGil) return guarded();
    const auto polled = [&](CorePoll poll, void *poll_data) {
        options.poll = poll;
        options.poll_data = poll_data;
        const kldiv_status status = guarded();
        options.poll_data = nullptr;
        return status;
    };
    return without_gil(polled, progress);
}
