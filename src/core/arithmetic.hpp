// IEEE 754's arithmetic for as long as one lives, whatever the thread has set: to the nearest, subnormals kept. Frameworks
// flush subnormals to zero in their threads, and a thread inherits that from the one which starts it.
#pragma once
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace kldiv {

class PlainArithmetic {
public:
    PlainArithmetic() : before_(read()) {
        if ((before_ & kChoices) != kPlain) write((before_ & ~kChoices) | kPlain);
    }
    ~PlainArithmetic() {
        if ((before_ & kChoices) != kPlain) write(before_);
    }
    PlainArithmetic(const PlainArithmetic &) = delete;
    PlainArithmetic &operator=(const PlainArithmetic &) = delete;

private:
#if defined(__x86_64__) || defined(_M_X64)
    // MXCSR: flush to zero, rounding, the exceptions' masks, denormals are zeros. Not the flags, which others may read.
    static constexpr uint64_t kChoices = 0xffc0, kPlain = 0x1f80;
    static uint64_t read() { return _mm_getcsr(); }
    static void write(uint64_t control) { _mm_setcsr(static_cast<unsigned>(control)); }
#elif defined(__aarch64__) && defined(__GNUC__)
    // FPCR: every choice: float16's format, default NaN, flushing to zero, rounding, traps.
    static constexpr uint64_t kChoices = 0x07c89f07, kPlain = 0;
    static uint64_t read() {
        uint64_t control;
        __asm__ volatile("mrs %0, fpcr" : "=r"(control));
        return control;
    }
    static void write(uint64_t control) { __asm__ volatile("msr fpcr, %0" : : "r"(control)); }
#else
    static constexpr uint64_t kChoices = 0, kPlain = 0;
    static uint64_t read() { return 0; }
    static void write(uint64_t) {}
#endif

    const uint64_t before_;
};

}  // namespace kldiv
