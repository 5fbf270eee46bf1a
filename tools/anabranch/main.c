/*
 * anabranch - the command line: the REST API in words, and a cluster on this machine.
 *
 * Exit codes: 0 done, 1 it failed (the message says what, where and what to do), 2 not understood.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "tools/anabranch/catalog.h"
#include "tools/anabranch/completion.h"
#include "tools/anabranch/local.h"
#include "tools/anabranch/objects.h"

enum exit_code { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char help[] =
    "anabranch - branches of a Postgres, over REST and on this machine\n"
    "\n"
    "  anabranch local up [--data DIR] [--port-base N] [--binaries DIR] [--postgres DIR] "
    "[--safekeepers N]\n"
    "                     [--object-store dir:/path|s3://bucket/prefix?..]\n"
    "                     [--gateway NAME: connection URIs lead through the gateway there]\n"
    "                     [--local-cache-mb N: pages that a compute keeps on this disk]\n"
    "  anabranch local down [--delete] | status | url | restart NAME | kill NAME [--signal KILL]\n"
    "\n"
    "  anabranch projects list [--deleted] | create [--name N] [--role R] [--database D] | get ID\n"
    "                            | delete ID [--hard] | recover ID | size ID | retention ID\n"
    "  anabranch branches list [--deleted] | create [--name N] [--parent B] [--lsn L | --time T]\n"
    "                            [--no-endpoint] | get B | delete B [--hard] | set-default B\n"
    "                            | recover B   within control's recovery_window_ms\n"
    "                            | restore B [--source B2] [--lsn L | --time T] [--preserve NAME]\n"
    "                            | reset B [--preserve NAME]   to what its parent is now\n"
    "                            | safekeepers B [--add IDS] [--remove IDS] [--give-up]\n"
    "                            | schedule B [--set JSON]   when snapshots of it are made\n"
    "                            | finalize B [--name OLD]   it takes its target's place\n"
    "                            | diff B [--other B2] [--lsn L] [--other-lsn L2]\n"
    "                            | digest B [--lsn L] | why-kept B [--lsn L] | time-of-lsn B --lsn "
    "L\n"
    "                            | leases B [--add NAME --lsn L --seconds S | --remove NAME]\n"
    "  anabranch snapshots list | create [--branch B] [--name N] [--lsn L | --time T] "
    "[--expires-at T]\n"
    "                            | get S | delete S | restore S [--target B] [--name N] "
    "[--finalize]\n"
    "  anabranch branch up NAME [--from B] [--ttl 3d] [-o env]   there is one, and its compute "
    "runs\n"
    "  anabranch branch down NAME                                there is none (any more)\n"
    "  anabranch endpoints list | create [--branch B] [--read-only --lsn L | --time T]\n"
    "                            | get ID | start ID | suspend ID | restart ID\n"
    "                            | delete ID\n"
    "  anabranch operations list | get ID\n"
    "  anabranch catalog rebuild [--catalog DIR --object-store URL]   control's disk was lost\n"
    "  anabranch connection-string [B] [--role R] [--database D]\n"
    "\n"
    "  anabranch completion bash|zsh|fish   a script: source <(anabranch completion bash)\n"
    "  anabranch chaos run [--seed S] [--minutes M] ...   kill and cut, then prove nothing is "
    "lost\n"
    "\n"
    "B is a branch's id or name. Commands on branches, endpoints, operations and snapshots take\n"
    "--project ID (ANABRANCH_PROJECT; not needed when there is only one). Creating and deleting "
    "waits\n"
    "for the operations unless --no-wait. All take -o json|yaml|table, --api-url URL "
    "(ANABRANCH_API_URL; default: the local\n"
    "cluster in --data DIR, ANABRANCH_DATA, or /var/lib/anabranch/local for root and\n"
    "~/.anabranch/local otherwise) and --api-key-file FILE (-: standard\n"
    "input) or --api-key KEY (ANABRANCH_API_KEY); an https:// URL also --api-ca FILE\n"
    "(ANABRANCH_API_CA) when the system does not trust who signed its certificate.\n";

/* Everything behind `chaos` belongs to the runner. */
static int run_chaos(char **argv)
{
    char *command[64] = {(char *)"python3", (char *)ANABRANCH_SOURCE_DIR "/tests/chaos/run.py"};
    size_t count = 2;
    char **from = argv + 2;
    if (*from == NULL || strcmp(*from, "run") != 0) {
        fprintf(stderr, "anabranch: expected anabranch chaos run ...\n");
        return EXIT_USAGE;
    }
    for (from++; *from != NULL && count + 1 < ARRAY_LEN(command); from++) {
        command[count++] = *from;
    }
    execvp("python3", command);
    fprintf(stderr, "anabranch: python3 cannot be started: it runs tests/chaos/run.py\n");
    return EXIT_FAILED;
}

static err_t run(struct args *args, struct errmsg *msg)
{
    const char *word = args_word(args, 0);
    struct context context;
    TRY(context_init(&context, args, msg));
    if (strcmp(word, "local") == 0) {
        return local_command(&context, msg);
    }
    if (strcmp(word, "catalog") == 0) {
        return catalog_command(&context, msg);
    }
    if (strcmp(word, "completion") == 0) {
        return completion_print(args_word(args, 1), msg);
    }
    if (objects_knows(word)) {
        return objects_command(&context, msg);
    }
    return err_set(msg, ERR_INVALID, "unknown command \"%s\" (see anabranch --help)", word);
}

int main(int argc, char **argv)
{
    struct args args;
    struct errmsg msg = {0};
    log_init("anabranch", LOG_LEVEL_WARN);
    if (argc > 1 && strcmp(argv[1], "chaos") == 0) {
        return run_chaos(argv);
    }
    err_t err = args_parse(&args, argc, argv, &msg);
    if (err == ERR_OK && args_has(&args, "version")) {
        printf("anabranch %s\n", ANABRANCH_VERSION);
        return EXIT_DONE;
    }
    bool wants_help = args_has(&args, "help") ||
                      (args.word_count > 0 && strcmp(args_word(&args, 0), "help") == 0);
    if (err == ERR_OK && (wants_help || args.word_count == 0)) {
        fputs(help, wants_help ? stdout : stderr);
        return wants_help ? EXIT_DONE : EXIT_USAGE;
    }
    if (err == ERR_OK) {
        err = run(&args, &msg);
    }
    if (err != ERR_OK) {
        fprintf(stderr, "anabranch: %s\n", msg.text);
    }
    return err == ERR_OK ? EXIT_DONE : err == ERR_INVALID ? EXIT_USAGE : EXIT_FAILED;
}
