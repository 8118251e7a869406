/* operations.h: the table of divergences, one row each: X(NAME, name, parameters). What a row stands for is said in
 * terms/<name>.hpp; the parameters are those that a call names beyond the ones that all have. */
#ifndef KLDIV_OPERATIONS_H
#define KLDIV_OPERATIONS_H

#define KLDIV_OPERATIONS(X)               \
    X(KL, kl, "")                         \
    X(GENERALIZED_KL, generalized_kl, "") \
    X(JSD, jsd, "beta")                   \
    X(JEFFREYS, jeffreys, "")

#endif
