# Postgres' tests in Perl, as they are, with computes as their nodes: `perl -I ... -MAnabranch t/001_rep_changes.pl`.
#
# PostgreSQL::Test::Cluster keeps all that talks to a server. What makes, configures, starts and ends one is replaced here:
# a node is a project of its own (so it has a system identifier of its own, by which subscribers are told apart), with
# a compute on its main branch. What the test writes into postgresql.conf becomes pg_settings of the endpoint, but for what
# belongs to the storage. A stop is `suspend`; an immediate one is a kill of the postmaster, and a suspend once the
# agent has started it again. Clients find the node's socket where the test thinks it is.
#
# Environment: ANABRANCH_API (of control, with /api/v2), ANABRANCH_AGENT (its URL), ANABRANCH_MADE (a file that gets a line
# `PROJECT NODE` for each node: who runs the test looks at them afterwards, and deletes them).
package Anabranch;

use strict;
use warnings FATAL => 'all';

use Carp;
use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More ();
use Time::HiRes qw(usleep);

# They are the storage's, or (wal_level = minimal) no compute can have them; the values do not matter to the tests.
my %forced = map { $_ => 1 } qw(fsync full_page_writes restart_after_crash max_wal_senders wal_log_hints port
	unix_socket_directories listen_addresses);

my $http = HTTP::Tiny->new(timeout => 120, default_headers => { 'content-type' => 'application/json' });

sub call
{
	my ($method, $url, $body) = @_;
	my $answer = $http->request($method, $url, { defined $body ? (content => encode_json($body)) : () });
	croak "$method $url: $answer->{status} $answer->{content}" unless $answer->{success};
	return decode_json($answer->{content});
}

sub api { my ($method, $path, $body) = @_; return call($method, "$ENV{ANABRANCH_API}$path", $body); }

# What became of the operations of an answer: '' or why one failed.
sub outcome
{
	my ($project, $answer) = @_;
	for my $operation (@{ $answer->{operations} })
	{
		my $state;
		do
		{
			$state = api('GET', "/projects/$project/operations/$operation->{id}?wait=50s")->{operation};
		} while ($state->{status} eq 'running' || $state->{status} eq 'scheduling');
		return "$state->{action}: $state->{error}" if $state->{status} eq 'failed';
	}
	return '';
}

# postgresql.conf as the test wrote it, the last word on each setting.
sub settings_of
{
	my ($node) = @_;
	my %settings = (cluster_name => $node->name, 'anabranch.allow_physical_slots' => 'on', allow_in_place_tablespaces => 'on');
	for my $line (split /\n/, $node->{_conf})
	{
		next unless $line =~ /^\s*([\w.]+)\s*=?\s*(?:'((?:[^']|'')*)'|([^\s#]*))/;
		my ($name, $value) = (lc $1, defined $2 ? $2 =~ s/''/'/gr : $3);
		next if $forced{$name} || $name eq 'wal_level' && $value eq 'minimal';
		$settings{$name} = $value;
	}
	return \%settings;
}

sub compute_of { my ($node) = @_; return call('GET', "$ENV{ANABRANCH_AGENT}/v1/computes/$node->{_endpoint}"); }

# Its socket, log and data directory, where the test looks for them.
sub find
{
	my ($node) = @_;
	my $compute = compute_of($node);
	my ($socket, $port) = $compute->{superuser_uri} =~ /host=([^&]+)&port=(\d+)/ or croak 'it has no socket';
	my $folder = $socket =~ s{/s$}{}r;
	my %links = ($node->host . '/.s.PGSQL.' . $node->port => "$socket/.s.PGSQL.$port",
		$node->logfile => "$folder/log", $node->data_dir => "$folder/pgdata");
	for my $link (keys %links)
	{
		unlink $link;
		symlink $links{$link}, $link or croak "link $link: $!";
	}
	$node->{_pid} = $compute->{pids}->{postgres};
	print "# node \"" . $node->name . "\" is compute $node->{_endpoint}, postmaster $node->{_pid}\n";
}

sub init
{
	my ($node, %params) = @_;
	# Computes are C.UTF-8, which sorts as C does.
	my $options = join ' ', @{ $params{extra} || [] };
	my $wanted = $options =~ s/^-c (\S+=\S+)$// ? "$1\n" : '';
	croak "a compute has no initdb: $options" unless $options =~ /^(?:--locale[= ]C)?(?: ?--encoding=UTF8)?$/;
	# has_archiving: a compute archives nothing, and few look for it.
	mkdir $node->backup_dir;
	my $logical = ($params{allows_streaming} || '') eq 'logical';
	$node->{_conf} = join("\n", "log_line_prefix = '%m [%p] %q%a '", 'log_statement = all', 'log_replication_commands = on',
		"wal_retrieve_retry_interval = '500ms'", 'shared_buffers = 1MB', 'wal_level = ' . ($logical ? 'logical' : 'replica'), $wanted);
}

sub is_conf { return $_[0] eq 'postgresql.conf'; }

sub append_conf
{
	my ($node, $file, $text) = @_;
	append_to_file($node->data_dir . "/$file", "$text\n") unless is_conf($file);
	$node->{_conf} .= "$text\n" if is_conf($file);
}

sub adjust_conf
{
	my ($node, $file, $setting, $value, $skip_equals) = @_;
	croak "no adjusting of $file on a compute" unless is_conf($file);
	$node->{_conf} =~ s/^\Q$setting\E\W.*\n//mg;
	$node->{_conf} .= $setting . ($skip_equals ? ' ' : ' = ') . "$value\n" if defined $value;
}

sub create
{
	my ($node) = @_;
	my $answer = api('POST', '/projects', { project => { name => $node->name,
		default_endpoint_settings => { pg_settings => settings_of($node) } } });
	$node->{_project} = $answer->{project}->{id};
	$node->{_endpoint} = $answer->{endpoints}->[0]->{id};
	append_to_file($ENV{ANABRANCH_MADE}, "$node->{_project} " . $node->name . "\n");
	my $why = outcome($node->{_project}, $answer);
	return $why if $why ne '';
	# A new cluster has no database but those of Postgres.
	my ($branch, $database) = ($answer->{branch}->{id}, $answer->{databases}->[0]->{name});
	return outcome($node->{_project}, api('DELETE', "/projects/$node->{_project}/branches/$branch/databases/$database"));
}

sub endpoint { my ($node, $method, $what, $body) = @_; return api($method, "/projects/$node->{_project}/endpoints/$node->{_endpoint}$what", $body); }

sub keep_settings { my ($node) = @_; endpoint($node, 'PATCH', '', { endpoint => { settings => { pg_settings => settings_of($node) } } }); }

sub start
{
	my ($node, %params) = @_;
	my $why;
	Test::More::BAIL_OUT('node "' . $node->name . '" is already running') if defined $node->{_pid};
	print '### Starting node "' . $node->name . "\"\n";
	if (!defined $node->{_project})
	{
		$why = create($node);
	}
	else
	{
		keep_settings($node);
		$why = outcome($node->{_project}, endpoint($node, 'POST', '/start'));
	}
	if ($why ne '')
	{
		print "# it does not start: $why\n";
		Test::More::BAIL_OUT('start failed') unless $params{fail_ok};
		return 0;
	}
	find($node);
	return 1;
}

# The postmaster dies; the agent starts another one.
sub crash
{
	my ($node) = @_;
	kill 'KILL', $node->{_pid} or croak "kill $node->{_pid}: $!";
	my $compute;
	do
	{
		usleep(50_000);
		$compute = compute_of($node);
	} until $compute->{state} eq 'running' && ($compute->{pids}->{postgres} || $node->{_pid}) != $node->{_pid};
}

sub suspend
{
	my ($node) = @_;
	my $why = outcome($node->{_project}, endpoint($node, 'POST', '/suspend'));
	croak $why unless $why eq '';
	$node->{_pid} = undef;
}

sub stop
{
	my ($node, $mode) = @_;
	return 1 unless defined $node->{_pid};
	print '### Stopping node "' . $node->name . '" using mode ' . ($mode || 'fast') . "\n";
	crash($node) if ($mode || '') eq 'immediate';
	suspend($node);
	return 1;
}

sub kill9 { my ($node) = @_; return $node->stop('immediate'); }

sub restart
{
	my ($node, %params) = @_;
	$node->stop('fast');
	return $node->start(%params);
}

# For the running server in its file, for those that follow in the endpoint.
sub reload
{
	my ($node) = @_;
	my $settings = settings_of($node);
	my $text = join '', map { "$_ = '" . ($settings->{$_} =~ s/'/''/gr) . "'\n" } sort keys %$settings;
	keep_settings($node);
	append_to_file($node->data_dir . '/postgresql.conf', $text);
	print '### Reloading node "' . $node->name . "\"\n";
	kill 'HUP', $node->{_pid} or croak "reload: $!";
}

# When the test ends its nodes stay as they are: somebody looks at them.
sub teardown_node
{
	my ($node) = @_;
	return if ${^GLOBAL_PHASE} eq 'END';
	$node->stop('immediate');
}

sub clean_node { }

sub rotate_logfile { my ($node) = @_; return $node->logfile; }

# A tablespace of a compute has no location.
my $psql = \&PostgreSQL::Test::Cluster::psql;

sub psql
{
	my ($node, $database, $sql, %params) = @_;
	$sql =~ s/(CREATE TABLESPACE \S+ LOCATION) '[^']*'/$1 ''/g if defined $sql;
	return $psql->($node, $database, $sql, %params);
}

{
	no strict 'refs';
	no warnings 'redefine';
	my %missing = map { my $what = $_; $what => sub { croak "a compute cannot $what" } } qw(backup backup_fs_cold init_from_backup
		promote logrotate enable_streaming enable_restoring enable_archiving set_recovery_mode set_standby_mode);
	my %ours = (%missing, init => \&init, append_conf => \&append_conf, adjust_conf => \&adjust_conf, start => \&start, stop => \&stop,
		kill9 => \&kill9, restart => \&restart, reload => \&reload, teardown_node => \&teardown_node,
		clean_node => \&clean_node, psql => \&psql, rotate_logfile => \&rotate_logfile);
	*{"PostgreSQL::Test::Cluster::$_"} = $ours{$_} for keys %ours;
}

1;
