# MmreplLink.pm: a network that can be broken. A process of its own passes bytes between a unix socket it listens on
# and a server's; the test tells it to hold, lose or cut them.
#
#	up		from who connects to the server;	down	back
#	hold('up'|'down'|'both')	takes no more bytes of that direction: as a network that drops everything in silence
#	budget(n)	n bytes more go up, then both directions are held: frozen in the middle
#	release		lets pass, once, what has come down while it is held
#	reset		breaks all connections (new ones may come)
#	cut		breaks all connections, and new ones at once
#	cut(node)	only those of that node
#	heal		passes everything again (held bytes go on)
#	moved		bytes that went up since the start
package MmreplLink;
use strict;
use warnings;
use IO::Select;
use IO::Socket::UNIX;
use Socket qw(:DEFAULT SO_PEERCRED);
use PostgreSQL::Test::Utils ();

# MmreplLink->new($node): listens for connections to that node; host and port are for a conninfo.
sub new
{
	my ($class, $node) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $port = $node->port;
	my $target = $node->host . "/.s.PGSQL.$port";
	my $listen = IO::Socket::UNIX->new(Local => "$dir/.s.PGSQL.$port", Listen => 64)
	  or die "cannot listen in $dir: $!";
	socketpair(my $mine, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		close $mine;
		$SIG{TERM} = 'DEFAULT';
		eval { _serve($listen, $theirs, $target); 1 } or print STDERR "link: $@";
		# without the test's END blocks
		require POSIX;
		POSIX::_exit(0);
	}
	close $theirs;
	close $listen;
	$mine->autoflush(1);
	return bless { control => $mine, pid => $pid, owner => $$, host => $dir, port => $port }, $class;
}

sub host { return $_[0]->{host}; }
sub port { return $_[0]->{port}; }

sub _tell
{
	my ($self, $what) = @_;
	print { $self->{control} } "$what\n";
	my $answer = readline($self->{control});
	die "the link is gone" unless defined $answer;
	chomp $answer;
	return $answer;
}

sub hold { return $_[0]->_tell('hold ' . ($_[1] // 'both')); }
sub budget { return $_[0]->_tell("budget $_[1]"); }
sub release { return $_[0]->_tell('release'); }
sub reset { return $_[0]->_tell('reset'); }
sub cut { return $_[0]->_tell('cut' . ($_[1] ? ' ' . $_[1]->data_dir : '')); }
sub heal { return $_[0]->_tell('heal'); }
sub moved { return $_[0]->_tell('moved'); }

sub DESTROY
{
	my ($self) = @_;
	return if $self->{owner} != $$;
	local ($?, $!);
	# not by closing the socket: the processes of later links have it too
	kill 'TERM', $self->{pid};
	waitpid($self->{pid}, 0);
	return;
}

# The directory in which the process at the other end works: a server's is its data directory.
sub _owner
{
	my ($client) = @_;
	my ($pid) = unpack 'i', getsockopt($client, SOL_SOCKET, SO_PEERCRED) // pack('i', 0);
	return readlink("/proc/$pid/cwd") // '';
}

# One entry per open socket: its other end, its direction (of what is read from it), and what waits to be written to it.
sub _serve
{
	my ($listen, $control, $target) = @_;
	my %end;
	my %held = (up => 0, down => 0);
	my ($cut, $budget, $moved) = (0, undef, 0);
	my %away;
	local $SIG{PIPE} = 'IGNORE';
	$_->blocking(0) foreach ($listen, $control);

	my $drop = sub {
		my $e = delete $end{ $_[0] } or return;
		my $o = delete $end{ $e->{other} };
		close $_->{sock} foreach grep { defined } ($e, $o);
	};
	# passes what is there; an end that has closed closes the other one
	my $pass = sub {
		my ($e) = @_;
		my $o = $end{ $e->{other} };
		my $want = 65536;
		$want = $budget if $e->{dir} eq 'up' && defined $budget && $budget < $want;
		my $n = sysread($e->{sock}, $o->{out}, $want, length($o->{out}));
		return if !defined $n && $!{EAGAIN};
		if (!$n)
		{
			syswrite($o->{sock}, $o->{out}) if length $o->{out};
			$drop->("$e->{sock}");
			return;
		}
		return if $e->{dir} ne 'up';
		$moved += $n;
		if (defined $budget && ($budget -= $n) <= 0)
		{
			$budget = undef;
			%held = (up => 1, down => 1);
		}
	};
	while (1)
	{
		my $read = IO::Select->new($listen, $control);
		my $write = IO::Select->new;
		foreach my $e (values %end)
		{
			my $o = $end{ $e->{other} };
			$read->add($e->{sock}) if !$held{ $e->{dir} } && length($o->{out}) < 65536;
			$write->add($e->{sock}) if length $e->{out};
		}
		my ($r, $w) = IO::Select::select($read, $write, undef, undef);
		foreach my $s (@{ $w // [] })
		{
			my $e = $end{$s} or next;
			my $n = syswrite($s, $e->{out});
			if (defined $n) { substr($e->{out}, 0, $n, ''); }
			elsif (!$!{EAGAIN}) { $drop->("$s"); }
		}
		foreach my $s (@{ $r // [] })
		{
			if ($s == $control)
			{
				my $n = sysread($control, my $line, 256);
				return if defined $n && $n == 0;
				my ($verb, $arg) = split ' ', $line // '';
				next unless defined $verb;
				my $whose = $verb eq 'cut' ? $arg // '' : '';
				if ($verb eq 'hold') { $held{$_} = 1 foreach $arg eq 'both' ? qw(up down) : ($arg); }
				elsif ($verb eq 'budget') { $budget = $arg; }
				elsif ($verb eq 'release') { $pass->($_) foreach grep { $end{ $_->{sock} } && $_->{dir} eq 'down' } values %end; }
				elsif ($verb eq 'heal') { %held = (up => 0, down => 0); %away = (); $cut = 0; $budget = undef; }
				if ($whose ne '')
				{
					$away{$whose} = 1;
					$drop->($_) foreach grep { $end{$_} && $end{$_}{from} eq $whose } keys %end;
				}
				elsif ($verb eq 'cut' || $verb eq 'reset') { $drop->($_) foreach keys %end; }
				$cut = 1 if $verb eq 'cut' && $whose eq '';
				syswrite($control, $verb eq 'moved' ? "$moved\n" : "done\n");
			}
			elsif ($s == $listen)
			{
				my $client = $listen->accept or next;
				my $from = _owner($client);
				my $server = $cut || $away{$from} ? undef : IO::Socket::UNIX->new(Peer => $target);
				if (!$server) { close $client; next; }
				$_->blocking(0) foreach ($client, $server);
				$end{$client} = { sock => $client, other => "$server", dir => 'up', out => '', from => $from };
				$end{$server} = { sock => $server, other => "$client", dir => 'down', out => '', from => $from };
			}
			elsif (my $e = $end{$s})
			{
				$pass->($e) unless $held{ $e->{dir} };
			}
		}
	}
}

1;
