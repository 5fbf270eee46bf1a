#include "compute/extension/page_client_private.h"

#include "access/parallel.h"
#include "utils/guc.h"

char	   *page_client_tenant;
char	   *page_client_timeline;
int			page_client_timeout_ms;

static char *host_setting;
static int	port_setting;
static int	generation_setting;
static char *token_setting;

PageAddress page_target;

static void
assign_host(const char *value, void *extra)
{
	if (!InitializingParallelWorker)
		strlcpy(page_target.host, value, sizeof(page_target.host));
}

static void
assign_port(int value, void *extra)
{
	if (!InitializingParallelWorker)
		page_target.port = value;
}

static void
assign_generation(int value, void *extra)
{
	if (!InitializingParallelWorker)
		page_target.generation = value;
}

static void
assign_token(const char *value, void *extra)
{
	if (!InitializingParallelWorker)
		strlcpy(page_target.token, value, sizeof(page_target.token));
}

static bool
check_host(char **value, void **extra, GucSource source)
{
	if (strlen(*value) < sizeof(page_target.host))
		return true;
	GUC_check_errdetail("A host name has at most %zu characters.", sizeof(page_target.host) - 1);
	return false;
}

/*
 * For nobody: the token is the whole cluster's, and who may read all settings is not only a
 * superuser but every member of pg_monitor, so every role that people make.
 */
static const char *
show_token(void)
{
	return token_setting[0] != '\0' ? "********" : "";
}

static bool
check_token(char **value, void **extra, GucSource source)
{
	if (strlen(*value) < sizeof(page_target.token))
		return true;
	GUC_check_errdetail("A token has at most %zu characters.", sizeof(page_target.token) - 1);
	return false;
}

void
page_client_define_address(void)
{
	DefineCustomStringVariable("anabranch.pageserver_host",
							   "Address of the pageserver that serves this timeline.",
							   NULL, &host_setting, "", PGC_SIGHUP, 0,
							   check_host, assign_host, NULL);
	DefineCustomIntVariable("anabranch.pageserver_port",
							"Port of the pageserver's page service.",
							NULL, &port_setting, 6400, 1, 65535, PGC_SIGHUP, 0,
							NULL, assign_port, NULL);
	DefineCustomIntVariable("anabranch.generation",
							"Attachment generation that the pageserver must have, 0 for any.",
							NULL, &generation_setting, 0, 0, INT_MAX, PGC_SIGHUP, 0,
							NULL, assign_generation, NULL);
	DefineCustomStringVariable("anabranch.token",
							   "Authorisation shown to the pageserver.",
							   NULL, &token_setting, "", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							   check_token, assign_token, show_token);
}

bool
page_client_is_configured(void)
{
	return page_target.host[0] != '\0' && page_client_tenant[0] != '\0' &&
		page_client_timeline[0] != '\0';
}
