/*
 * mutant.h - planted bugs that prove that the tests can see.
 *
 * MUTANT(n) is constantly false in every build that ships. tests/sim/mutants.py compiles the cores
 * once for each n with -DMUT=n and expects the simulator to find the bug. The numbers are listed in
 * that script, each with what it breaks.
 */
#pragma once

#ifdef MUT
#define MUTANT(n)              ((n) == MUT)
#define MUTANT_IN(first, last) ((first) <= MUT && MUT <= (last))
#else
#define MUTANT(n)              false
#define MUTANT_IN(first, last) false
#endif
