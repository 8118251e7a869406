// See operations.hpp.
#include "operations.hpp"

#include <iterator>

namespace kldiv {
namespace {

struct Row {
    const char *name;
    const char *parameters;
};

constexpr Row kRows[] = {
#define KLDIV_ROW(NAME, name, parameters) {#name, parameters},
    KLDIV_OPERATIONS(KLDIV_ROW)
#undef KLDIV_ROW
};

const Row *row(int i) { return i >= 0 && i < static_cast<int>(std::size(kRows)) ? &kRows[i] : nullptr; }

}  // namespace

// The mixture is one of the two there, and what is left of jsd is 0: by convention (TRL, Liger) it is the limit of
// jsd / (beta (1 - beta)) instead.
Limit limit_of(const kldiv_options &options) {
    if (options.operation != KLDIV_JSD || (options.beta > 0 && options.beta < 1)) return {options.operation, false};
    return {KLDIV_KL, options.beta >= 1};
}

}  // namespace kldiv

const char *kldiv_operation_name(int i) {
    const kldiv::Row *row = kldiv::row(i);
    return row != nullptr ? row->name : nullptr;
}

const char *kldiv_operation_parameters(int i) {
    const kldiv::Row *row = kldiv::row(i);
    return row != nullptr ? row->parameters : nullptr;
}
