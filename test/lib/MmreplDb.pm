# MmreplDb.pm: a database of a server that has several of them, for tests with more nodes than servers. It stands wherever
# MmreplCluster takes a node.
package MmreplDb;
use strict;
use warnings;
use MmreplLink;

# MmreplDb->new($server, $name, link => 1): makes the database; its name is that of the db as well.
sub new
{
	my ($class, $server, $name, %opt) = @_;
	$server->safe_psql('postgres', "CREATE DATABASE $name TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'");
	my $self = bless { server => $server, mmrepl_dbname => $name }, $class;
	$self->{mmrepl_link} = MmreplLink->new($server) if $opt{link};
	return $self;
}

sub name { return $_[0]->{mmrepl_dbname}; }
sub server { return $_[0]->{server}; }
sub host { return $_[0]->{server}->host; }
sub port { return $_[0]->{server}->port; }
sub logfile { return $_[0]->{server}->logfile; }

# Those that take a database first, as a server's do: it is this one, whatever is said.
foreach my $method (qw(safe_psql psql poll_query_until background_psql))
{
	no strict 'refs';
	*$method = sub {
		my ($self, undef, @args) = @_;
		return $self->{server}->$method($self->{mmrepl_dbname}, @args);
	};
}

1;
