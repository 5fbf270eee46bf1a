/*
 * physical.c - see physical.h.
 *
 * Postgres calls nobody before it carries out a replication command. But it may
 * log each, so a walsender is made to, and the message is where the command is
 * seen, and refused.
 *
 * The two settings that make it so are changed when the first transaction of
 * the session ends, in which those of the role, the database, and the client
 * have come into effect. In the log stands what stands there with the user's
 * own ones: a message that only ours brought about is judged by these.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/xact.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"

#include "compute/extension/physical.h"

#define PROPOSER "walproposer"
#define COMMAND  "received replication command: %s"

/* What log_replication_commands moves from DEBUG1 to LOG, in walsender.c and slot.c. */
static const char *const command_messages[] = {
	COMMAND,
	"acquired logical replication slot \"%s\"",
	"acquired physical replication slot \"%s\"",
	"released logical replication slot \"%s\"",
	"released physical replication slot \"%s\"",
};

static emit_log_hook_type next_log;
static bool is_watching;
static bool user_logs_commands;
static int	muted_level;			/* the user's, while ours is in effect instead; else 0 */

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
on_transaction_end(XactEvent event, void *context)
{
	if (!am_walsender || is_watching || event != XACT_EVENT_COMMIT)
		return;
	user_logs_commands = log_replication_commands;
	SetConfigOption("log_replication_commands", "on", PGC_SUSET, PGC_S_OVERRIDE);
	if (log_min_messages >= FATAL)	/* then it would not come to the hook */
	{
		muted_level = log_min_messages;
		SetConfigOption("log_min_messages", "error", PGC_SUSET, PGC_S_OVERRIDE);
	}
	is_watching = true;
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

static bool
is_about_commands(const ErrorData *message)
{
	for (int i = 0; message->message_id != NULL && i < lengthof(command_messages); i++)
		if (strcmp(message->message_id, command_messages[i]) == 0)
			return true;
	return false;
}

/* A session, or a reload, may have set another level since. */
static int
user_log_level(void)
{
	return muted_level != 0 && log_min_messages == ERROR ? muted_level : log_min_messages;
}

/* As is_log_level_output() in elog.c has it. */
static bool
user_would_log(int level)
{
	int			least = user_log_level();

	if (level == LOG || level == LOG_SERVER_ONLY)
		return least == LOG || least <= ERROR;
	return least == LOG ? level >= FATAL : level >= least;
}

/* An error from here ends the command that is being logged, like one of the line after. */
static void
on_log(ErrorData *message)
{
	if (next_log != NULL)
		next_log(message);
	if (!is_watching)
		return;
	if (!user_logs_commands && is_about_commands(message))
	{
		message->elevel = DEBUG1;
		message->output_to_client = message->output_to_client && DEBUG1 >= client_min_messages;
	}
	message->output_to_server = message->output_to_server && user_would_log(message->elevel);
	if (message->message_id != NULL && strcmp(message->message_id, COMMAND) == 0 &&
		debug_query_string != NULL && is_physical(debug_query_string) && !is_proposer())
		refuse();
}

void
physical_install(void)
{
	RegisterXactCallback(on_transaction_end, NULL);
	next_log = emit_log_hook;
	emit_log_hook = on_log;
}
