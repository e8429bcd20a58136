# MmreplGates.pm: decides what flows between nodes, direction by direction. A direction is a pusher: it is stopped while
# it naps, so that it holds nothing, and goes on when its direction is opened. Nothing is lost or broken by that: it is a
# very slow peer. Needs a replicated table mark (id text PRIMARY KEY, n int) with a row for each node's name.
#
#	new(nodes...)	all open
#	shut			stops all directions
#	flight(a, b)	what a sends to b from now on is on its way, and does not arrive, until the next deliver or open
#	deliver(a, b)	lets all that a has committed reach b, and waits for it
#	go(a, b)		lets that direction go on, and waits for nothing
#	open			all go on
#	orders			shuffled list of all directions
#	ask(node, sql)	result of SQL, in a session that stays open
#	traps(node)		who applies a new row of the replicated table z (id int PRIMARY KEY, gate int) there stops while its gate is held
#	hold(gates...)	holds gates 7 and 8 (given: those), release(gates...) lets them go
#	caught(gate, name)	a test: somebody has stopped at it
#	end				opens all, for good
package MmreplGates;
use strict;
use warnings;
use List::Util qw(shuffle);
use MmreplCluster;
use PostgreSQL::Test::Utils ();

sub new
{
	my ($class, @nodes) = @_;
	return bless { nodes => \@nodes, stopped => {}, owner => $$, session => { map { $_->name => session($_) } @nodes } }, $class;
}

# SQL on a node, in a session that stays open.
sub ask
{
	my ($self, $node, $sql) = @_;
	return $self->{session}{ $node->name }->query_safe($sql);
}

sub orders
{
	my ($self) = @_;
	my @all;
	foreach my $x (@{ $self->{nodes} })
	{
		push @all, map { [ $x, $_ ] } grep { $_ != $x } @{ $self->{nodes} };
	}
	return shuffle @all;
}

sub _pid
{
	my ($self, $x, $y) = @_;
	return $self->ask($x, "SELECT pid FROM mmrepl.worker_status WHERE kind = 'pusher' AND pid > 0 AND db = '" . $y->name . "'");
}

# Stops it where it waits for something to do; what it was busy with is let through first.
sub _shut
{
	my ($self, $x, $y) = @_;
	my $name = $x->name . '>' . $y->name;
	return if $self->{stopped}{$name};
	foreach my $try (1 .. 1000)
	{
		my $pid = $self->_pid($x, $y);
		if ($pid)
		{
			kill 'STOP', $pid;
			$self->{stopped}{$name} = $pid;
			my $idle = $self->ask($x, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND xact_start IS NULL AND wait_event_type IN ('Activity', 'Extension')");
			return if $idle;
			$self->_open($x, $y);
		}
		select(undef, undef, undef, 0.01);
	}
	die "pusher $name does not come to rest\n";
}

sub _open
{
	my ($self, $x, $y) = @_;
	my $pid = delete $self->{stopped}{ $x->name . '>' . $y->name };
	kill 'CONT', $pid if $pid;
	return;
}

sub go
{
	my ($self, $x, $y) = @_;
	return $self->_open($x, $y);
}

# The session at b that takes what a sends is stopped: a's pusher has read its rows and waits.
sub flight
{
	my ($self, $x, $y) = @_;
	my $name = $x->name . '>>' . $y->name;
	my $pid = $self->ask($y, "SELECT pid FROM mmrepl.worker_status WHERE kind = 'apply' AND db = '" . $x->name . "'");
	die "there is no session of $name\n" unless $pid =~ /^\d+$/;
	kill 'STOP', $pid;
	$self->{stopped}{$name} = $pid;
	die "the session of $name was busy\n" unless $self->ask($y, "SELECT state = 'idle' AND wait_event = 'ClientRead' FROM pg_stat_activity WHERE pid = $pid") eq 't';
	$self->_open($x, $y);
	return;
}

sub shut
{
	my ($self) = @_;
	$self->_shut(@$_) foreach $self->orders;
	return;
}

sub open
{
	my ($self) = @_;
	kill 'CONT', values %{ $self->{stopped} };
	$self->{stopped} = {};
	return;
}

sub deliver
{
	my ($self, $x, $y) = @_;
	my $name = $x->name;
	my $n = $self->ask($x, "UPDATE mark SET n = n + 1 WHERE id = '$name' RETURNING n");
	my $flying = delete $self->{stopped}{ $x->name . '>>' . $y->name };
	kill 'CONT', $flying if $flying;
	$self->_open($x, $y);
	my $tries = 500 * $PostgreSQL::Test::Utils::timeout_default;
	while ($self->ask($y, "SELECT n >= $n FROM mark WHERE id = '$name'") ne 't')
	{
		die "what $name wrote does not reach " . $y->name . "\n" unless $tries--;
		select(undef, undef, undef, 0.002);
	}
	return;
}

# A trigger that is fired for replicas waits for advisory locks, one a gate.
sub traps
{
	my ($self, $node) = @_;
	sql($node, q{
		CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			PERFORM pg_catalog.pg_advisory_lock_shared(NEW.gate);
			PERFORM pg_catalog.pg_advisory_unlock_shared(NEW.gate);
			RETURN NEW;
		END $$;
		CREATE TRIGGER gate BEFORE INSERT ON z FOR EACH ROW EXECUTE FUNCTION gate();
		ALTER TABLE z ENABLE REPLICA TRIGGER gate});
	$self->{trap} = $node;
	$self->{gate} = { map { $_ => session($node) } 7, 8 };
	return;
}

sub hold
{
	my ($self, @gates) = @_;
	$self->{gate}{$_}->query_safe("SELECT pg_advisory_lock($_)") foreach @gates;
	return;
}

sub release
{
	my ($self, @gates) = @_;
	$self->{gate}{$_}->query_safe("SELECT pg_advisory_unlock($_)") foreach @gates;
	return;
}

sub caught
{
	my ($self, $gate, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return poll_is($self->{trap}, "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = $gate AND NOT granted", undef, $name);
}

# Opens everything for good.
sub end
{
	my ($self) = @_;
	$self->open;
	$_->quit foreach values %{ delete $self->{session} }, values %{ delete $self->{gate} // {} };
	return;
}

sub DESTROY
{
	my ($self) = @_;
	kill 'CONT', values %{ $self->{stopped} } if $self->{owner} == $$;
	return;
}

1;
