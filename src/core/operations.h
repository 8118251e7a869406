/* operations.h: the table of divergences, one row each: X(NAME, name, parameters). What a row stands for is said in
 * terms/<name>.hpp; the parameters are those that a call names beyond the ones that all have.
 *
 * And the table of those that read inputs of other forms than probabilities, whose rows have a state:
 * X(name, NAME of the divergence, FORM of y_true, FORM of y_pred), each in rows/<name>.hpp. The first that fits is taken
 * (a row for labels is for those that are not smoothed); the last takes ANY. */
#ifndef KLDIV_OPERATIONS_H
#define KLDIV_OPERATIONS_H

#define KLDIV_OPERATIONS(X)               \
    X(KL, kl, "")                         \
    X(GENERALIZED_KL, generalized_kl, "") \
    X(JSD, jsd, "beta")                   \
    X(JEFFREYS, jeffreys, "")

#define KLDIV_ROWWISE(X)             \
    X(kl_logits, KL, LOGITS, LOGITS) \
    X(kl_labels, KL, LABELS, LOGITS) \
    X(as_probs, ANY, ANY, ANY)

#endif
