/*
 * physical.c - see physical.h.
 *
 * Postgres calls nobody before it carries out a replication command. But it may
 * log each, so a walsender is made to, and the message is where the command is
 * seen, and refused.
 */
#include "postgres.h"

#include <ctype.h>

#include "libpq/auth.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#include "compute/extension/physical.h"

#define PROPOSER "walproposer"
#define MESSAGE  "received replication command: %s"

static ClientAuthentication_hook_type next_authentication;
static emit_log_hook_type next_log;
static bool user_logs_commands;

static void
refuse(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("physical replication and base backups are not supported on a compute"),
			 errdetail("Its data directory holds no relations, and its WAL is kept by the safekeepers."),
			 errhint("Make a branch for a copy; logical replication and pg_dump work as ever.")));
}

/* The one that is meant comes over the socket. */
static bool
is_proposer(void)
{
	return MyProcPort != NULL && MyProcPort->laddr.addr.ss_family == AF_UNIX &&
		strcmp(application_name, PROPOSER) == 0;
}

static void
on_authentication(Port *port, int status)
{
	if (next_authentication != NULL)
		next_authentication(port, status);
	if (!am_walsender || status != STATUS_OK)
		return;
	user_logs_commands = log_replication_commands && log_min_messages < FATAL;
	SetConfigOption("log_replication_commands", "on", PGC_SUSET, PGC_S_OVERRIDE);
	if (log_min_messages >= FATAL)	/* then it would not come to the hook */
		SetConfigOption("log_min_messages", "error", PGC_SUSET, PGC_S_OVERRIDE);
}

static const char *
skip_space(const char *at)
{
	while (isspace((unsigned char) *at))
		at++;
	return at;
}

/* What follows the word (they are upper case), or NULL if it is another one. */
static const char *
after_word(const char *at, const char *word)
{
	size_t		size = strlen(word);

	if (at == NULL || strncmp(at, word, size) != 0 || isalnum((unsigned char) at[size]) || at[size] == '_')
		return NULL;
	return skip_space(at + size);
}

static const char *
after_name(const char *at)
{
	bool		quoted = *at == '"';

	at += quoted ? 1 : 0;
	while (*at != '\0' && (quoted ? *at != '"' : !isspace((unsigned char) *at)))
		at++;
	return skip_space(quoted && *at != '\0' ? at + 1 : at);
}

static bool
is_physical(const char *command)
{
	const char *start = skip_space(command);
	const char *rest = after_word(start, "START_REPLICATION");
	const char *name = after_word(rest, "SLOT");

	if (after_word(start, "BASE_BACKUP") != NULL)
		return true;
	if (rest == NULL)
		return false;
	return after_word(name != NULL ? after_name(name) : rest, "LOGICAL") == NULL;
}

/* An error from here ends the command that is being logged, like one of the line after. */
static void
on_log(ErrorData *message)
{
	if (next_log != NULL)
		next_log(message);
	if (!am_walsender || message->message_id == NULL || strcmp(message->message_id, MESSAGE) != 0 ||
		debug_query_string == NULL)
		return;
	message->output_to_server = message->output_to_server && user_logs_commands;
	if (is_physical(debug_query_string) && !is_proposer())
		refuse();
}

void
physical_install(void)
{
	next_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = on_authentication;
	next_log = emit_log_hook;
	emit_log_hook = on_log;
}
