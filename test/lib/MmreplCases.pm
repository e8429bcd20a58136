# MmreplCases.pm: a table of cases, each a few statements on one of three nodes while nothing flows between them, run in
# many orders of delivery at once. A case is a hash:
#	name	for the report
#	setup	statements on the first node, seen by all before anything happens
#	steps	[ node (0, 1, 2), statements ]...: one after the other, each step is newer than the one before
#	rows	what must be in the tables then, on all nodes: a query, and its result
#	types	conflict types, all nodes taken together, sorted, joined by blanks; a pattern; or none: it does not matter
#	relname	its table, if conflicts are not known by their key
# C in statements and queries is the number of the case, also behind a small letter: each runs on rows, (c, ...), or
# tables of its own.
package MmreplCases;
use strict;
use warnings;
use Exporter 'import';
use MmreplCluster;
use MmreplGates;
use Test::More;

our @EXPORT = qw(run_cases);

sub _number
{
	my ($text, $c) = @_;
	return $text =~ s/\b([a-z]?)C\b/$1$c/gr;
}

# Runs all of them with one order of delivery ([from, to] pairs; those that are not named come last, all at once).
# between => sub: called before the last deliveries
sub run_cases
{
	my ($gates, $nodes, $cases, $first, $name, @order) = @_;
	my $c = $first;
	my @run = map { { case => $_, c => $c++ } } @$cases;
	my $setup = join "\n", map { _number($_->{case}{setup} // '', $_->{c}) } @run;
	$gates->open;
	sql($nodes->[0], $setup);
	wait_synced(@$nodes);
	$gates->shut;
	my $step = 0;
	while (1)
	{
		my @do = map { [] } @$nodes;
		foreach my $r (grep { $_->{case}{steps}[$step] } @run)
		{
			my ($node, $statements) = @{ $r->{case}{steps}[$step] };
			push @{ $do[$node] }, _number($statements, $r->{c}) . ';';
		}
		last unless grep { @$_ } @do;
		foreach my $i (grep { @{ $do[$_] } } 0 .. $#do)
		{
			sql($nodes->[$i], join "\n", @{ $do[$i] });
		}
		$step++;
	}
	foreach my $d (@order)
	{
		ref $d eq 'CODE' ? $d->() : $gates->deliver($nodes->[ $d->[0] ], $nodes->[ $d->[1] ]);
	}
	$gates->open;
	wait_synced(@$nodes);
	# one look at each node for all cases
	my @rows = map { _look($_, map { "SELECT $_->{c}, (" . _number($_->{case}{rows}[0], $_->{c}) . ')::text' } @run) } @$nodes;
	my @types = map { _look($_, map {
		"SELECT $_->{c}, (SELECT string_agg(DISTINCT conflict_type, ' ') FROM mmrepl.conflict_log WHERE key ->> 'c' = '$_->{c}'"
		  . (defined $_->{case}{relname} ? ' OR relname = ' . "'" . _number($_->{case}{relname}, $_->{c}) . "'" : '') . ')' } @run) } @$nodes;
	my $ok = 1;
	foreach my $r (@run)
	{
		my ($case, $c) = ($r->{case}, $r->{c});
		my %seen = map { $_ => 1 } map { split / /, $_->{$c} } @types;
		my $types = join ' ', sort keys %seen;
		$ok &= is(join(' / ', map { $_->{$c} } @rows), join(' / ', ($case->{rows}[1]) x @$nodes), "$name: $case->{name}");
		next if !defined $case->{types};
		$ok &= ref $case->{types} ? like($types, $case->{types}, "$name: $case->{name}: conflicts")
		  : is($types, $case->{types}, "$name: $case->{name}: conflicts");
	}
	return $ok;
}

# case number => what its query gives
sub _look
{
	my ($node, @queries) = @_;
	return { map { split /\|/, $_, 2 } split /\n/, sql($node, join("\nUNION ALL\n", @queries)) };
}

1;
