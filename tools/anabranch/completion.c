#include "tools/anabranch/completion.h"

#include <stdio.h>
#include <string.h>

#include "common/base/types.h"

/* The verbs of each word; beyond them come flags and names, which the cluster would have to say. */
static const struct {
    const char *word, *verbs;
} words[] = {
    {"local", "up down status url restart kill"},
    {"projects", "list create get delete recover size retention"},
    {"branches",
     "list create get delete recover set-default restore reset safekeepers schedule finalize "
     "diff digest why-kept time-of-lsn leases"},
    {"branch", "up down"},
    {"endpoints", "list create get start suspend restart delete"},
    {"snapshots", "list create get delete restore"},
    {"operations", "list get"},
    {"connection-string", ""},
    {"catalog", "rebuild"},
    {"chaos", "run"},
    {"completion", "bash zsh fish"},
    {"help", ""},
};

const char *completion_verbs(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(words[i].word, word) == 0) {
            return words[i].verbs;
        }
    }
    return NULL;
}

bool completion_has_verb(const char *word, const char *verb)
{
    const char *verbs = completion_verbs(word);
    size_t size = strlen(verb);
    for (const char *at = verbs; at != NULL && *at != '\0'; at += strspn(at, " ")) {
        size_t length = strcspn(at, " ");
        if (length == size && strncmp(at, verb, size) == 0) {
            return true;
        }
        at += length;
    }
    return false;
}

static void print_words(void)
{
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        printf("%s%s", i == 0 ? "" : " ", words[i].word);
    }
}

/* zsh reads it by its bashcompinit. */
static void print_bash(void)
{
    printf("_anabranch() {\n"
           "    local words=\"");
    print_words();
    printf("\"\n"
           "    if [ \"$COMP_CWORD\" = 2 ]; then\n"
           "        case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        printf("        %s) words=\"%s\" ;;\n", words[i].word, words[i].verbs);
    }
    printf("        *) words=\"\" ;;\n"
           "        esac\n"
           "    elif [ \"$COMP_CWORD\" -gt 2 ]; then\n"
           "        words=\"\"\n"
           "    fi\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
           "}\n"
           "complete -F _anabranch anabranch\n");
}

static void print_fish(void)
{
    printf("complete -c anabranch -f\n"
           "complete -c anabranch -n __fish_use_subcommand -a '");
    print_words();
    printf("'\n");
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (words[i].verbs[0] != '\0') {
            printf(
                "complete -c anabranch -n '__fish_seen_subcommand_from %s' -a '%s'\n",
                words[i].word, words[i].verbs);
        }
    }
}

err_t completion_print(const char *shell, struct errmsg *msg)
{
    if (shell != NULL && strcmp(shell, "fish") == 0) {
        print_fish();
    } else if (shell != NULL && strcmp(shell, "bash") == 0) {
        print_bash();
    } else if (shell != NULL && strcmp(shell, "zsh") == 0) {
        printf("autoload -U +X bashcompinit && bashcompinit\n");
        print_bash();
    } else {
        return err_set(msg, ERR_INVALID, "expected anabranch completion bash, zsh or fish");
    }
    return ERR_OK;
}
