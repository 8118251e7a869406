// What the table of operations comes to for a call. Included by kldiv.cpp.
#pragma once
#include "kldiv.h"

namespace kldiv {

// Another operation that a call's comes to: at the ends of its parameter's range, perhaps with y_true and y_pred swapped,
// or for the forms of its inputs.
struct Limit {
    kldiv_operation operation;
    bool swapped;
};
Limit limit_of(const kldiv_options &options);

// The rows of KLDIV_ROWWISE, by number.
#define KLDIV_ROW(name, NAME, Y_TRUE, Y_PRED) +1
constexpr int kRowwiseCount = 0 KLDIV_ROWWISE(KLDIV_ROW);
#undef KLDIV_ROW
// The one for an operation on inputs of other forms than probabilities,
int rowwise_of(const kldiv_options &options);
// and the separable operation whose terms are added up once they are probabilities.
kldiv_operation terms_of(const kldiv_options &options);
// Whether a row of either side is made to sum to 1.
inline bool makes_distributions(const kldiv_options &options) {
    const auto sums_to_1 = [](kldiv_form form) { return form != KLDIV_PROBS && form != KLDIV_LOG_PROBS; };
    return sums_to_1(options.y_true_form) && sums_to_1(options.y_pred_form);
}
// Whether both sides are probabilities, or labels beside those: what a clip is for.
inline bool reads_probs(const kldiv_options &options) {
    const auto is_either = [](kldiv_form form) { return form == KLDIV_PROBS || form == KLDIV_LABELS; };
    return is_either(options.y_true_form) && is_either(options.y_pred_form);
}
// Whether rows have a state: neither input is what a separable operation reads.
inline bool is_rowwise(const kldiv_options &options) {
    return options.y_true_form != KLDIV_PROBS || options.y_pred_form != KLDIV_PROBS;
}

}  // namespace kldiv
