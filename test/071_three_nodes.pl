# Strategies on three servers: several decide the same at once, and hear of each other in every order. What a merge function keeps of each
# write is never lost, whoever has made rows of it meanwhile; the db that comes first stays first. A target decides nothing.
use strict;
use warnings;
use MmreplCluster;
use Test::More;

my @nodes = map { new_node($_, link => 1) } qw(aaa01 aaa02 aaa03);
my ($a, $b, $c) = @nodes;
my $target = new_node('aaa04');
sql_all(q{
	CREATE TABLE bag (id int PRIMARY KEY, words text NOT NULL DEFAULT '');
	CREATE TABLE ranked (id int PRIMARY KEY, words text NOT NULL DEFAULT '');
	CREATE TABLE odd (id int PRIMARY KEY, words text NOT NULL DEFAULT '');
	-- what both have
	CREATE FUNCTION join_words(a bag, b bag) RETURNS bag LANGUAGE sql IMMUTABLE AS $$
		SELECT a.id, (SELECT string_agg(DISTINCT w, ' ' ORDER BY w) FROM unnest(string_to_array(a.words || ' ' || b.words, ' ')) w WHERE w <> '') $$;
	-- not what a merge function should be: each call makes something new
	CREATE FUNCTION grows(a odd, b odd) RETURNS odd LANGUAGE sql IMMUTABLE AS $$
		SELECT a.id, left(least(a.words, b.words) || '+' || greatest(a.words, b.words), 1000) $$;
}, @nodes, $target);
join_nodes([ @nodes, $target ], roles => { aaa04 => 'target' });
sql($a, q{SELECT mmrepl.update_table('bag', conflict_strategy => 'function: join_words');
	SELECT mmrepl.update_table('odd', conflict_strategy => 'function: grows');
	SELECT mmrepl.update_table('ranked', conflict_strategy => 'aaa01 aaa02')});
wait_synced(@nodes);

my $add = sub {
	my ($node, $table, $key, $word) = @_;
	return "INSERT INTO $table VALUES ($key, '$word') ON CONFLICT (id) DO UPDATE SET words = ltrim(concat_ws(' ', $table.words, '$word'))";
};
# Results of results travel some times more.
my $settle = sub {
	$_->{mmrepl_link}->heal foreach @nodes;
	wait_synced(@nodes) foreach 1 .. 3;
};

# All three write one row while nobody hears anybody; they are told in every order.
my $key = 0;
foreach my $order ([ 0, 1, 2 ], [ 0, 2, 1 ], [ 1, 0, 2 ], [ 1, 2, 0 ], [ 2, 0, 1 ], [ 2, 1, 0 ])
{
	$key++;
	$_->{mmrepl_link}->cut foreach @nodes;
	foreach my $i (reverse @$order)
	{
		sql($nodes[$i], $add->($nodes[$i], $_, $key, $nodes[$i]->name) . ";") foreach qw(bag ranked odd);
	}
	foreach my $i (@$order)
	{
		$nodes[$i]->{mmrepl_link}->heal;
		poll($nodes[$i], "SELECT words = 'aaa01 aaa02 aaa03' FROM bag WHERE id = $key");
	}
	$settle->();
	my $name = 'told in order ' . join(' ', map { $nodes[$_]->name } @$order);
	is(sql($_, "SELECT words FROM bag WHERE id = $key"), 'aaa01 aaa02 aaa03', "$name: all words on " . $_->name) foreach @nodes, $target;
	is(sql($_, "SELECT words FROM ranked WHERE id = $key"), 'aaa01', "$name: who comes first stands on " . $_->name) foreach @nodes, $target;
	same_rows('odd', [ @nodes, $target ], name => "$name: an odd function makes no difference");
}
is(sql($target, q{SELECT count(*) FROM mmrepl.conflict_history WHERE resolution = 'merge'}), 0, 'a target decides nothing');

# Random histories: each server adds words to a few rows, is cut off and comes back, and the words are counted at the end.
my $seed = $ENV{STRATEGIES_SEED} // 20261123;
note("seed $seed");
srand($seed);
my @sessions = map { session($_) } @nodes;
my (%words, $n);
foreach my $step (1 .. $ENV{STRATEGIES_STEPS} // 300)
{
	my $i = int rand 3;
	my $what = rand;
	if ($what < 0.8)
	{
		my $row = 100 + int rand 3;
		my $word = chr(ord('a') + $i) . ++$n;
		$sessions[$i]->query_safe($add->($nodes[$i], 'bag', $row, $word));
		$words{$row}{$word} = 1;
		$sessions[$i]->query_safe($add->($nodes[$i], $what < 0.4 ? 'ranked' : 'odd', $row, $word));
		$sessions[$i]->query_safe("DELETE FROM ranked WHERE id = $row") if $what < 0.05;
	}
	elsif ($what < 0.9) { $nodes[$i]->{mmrepl_link}->cut; }
	else { $nodes[$i]->{mmrepl_link}->heal; }
}
$_->quit foreach @sessions;
$settle->();
foreach my $node (@nodes, $target)
{
	foreach my $row (sort keys %words)
	{
		my %have = map { $_ => 1 } split / /, sql($node, "SELECT words FROM bag WHERE id = $row");
		my @lost = grep { !$have{$_} } sort keys %{ $words{$row} };
		is("@lost", '', "row $row: none of " . keys(%{ $words{$row} }) . ' words is lost on ' . $node->name);
	}
}
note('resolutions: ' . join ', ', map { $_->name . ' ' . sql($_, q{SELECT count(*) FROM mmrepl.conflict_history WHERE resolution = 'merge'}) } @nodes);
cmp_ok(sql($a, q{SELECT count(*) FROM mmrepl.conflict_history WHERE resolution = 'merge'}), '>', 3, 'there was something to merge');
# results of results come to an end: nothing is on its way any more
my $conflicts = join ',', map { sql($_, 'SELECT count(*) FROM mmrepl.conflict_history') } @nodes;
wait_synced(@nodes);
is(join(',', map { sql($_, 'SELECT count(*) FROM mmrepl.conflict_history') } @nodes), $conflicts, 'and then all is quiet');
same_rows($_, [ @nodes, $target ]) foreach qw(bag ranked odd);

$_->stop foreach @nodes, $target;
log_clean($_, qr/terminat|could not connect|connection|server closed/) foreach @nodes, $target;
done_testing();
