#include "tests/sim/trial.h"

#include <setjmp.h>
#include <signal.h>

static sigjmp_buf before;

static void on_abort(int number)
{
    (void)number;
    siglongjmp(before, 1);
}

const char *trial_run(struct world *world, FILE *chart)
{
    (void)signal(SIGABRT, on_abort);
    const char *violation = "assertion";
    if (sigsetjmp(before, /* with the mask */ 1) == 0) {
        violation = world_run(world, chart);
    }
    (void)signal(SIGABRT, SIG_DFL);
    return violation;
}
