# Random writers on two and three servers and random faults, from fixed seeds; then all is equal, and nothing is lost. See test/chaos.
use strict;
use warnings;
use Test::More;

plan skip_all => 'python3 is not here' if system('python3 -c "" 2>/dev/null') != 0;

foreach my $run ([ 7, 2, 0.2 ], [ 8, 3, 0.2 ])
{
	my ($seed, $nodes, $minutes) = @$run;
	my @told = `python3 -B test/chaos/chaos.py --seed $seed --nodes $nodes --minutes $minutes --profile short 2>&1`;
	my $status = $?;
	chomp @told;
	note($_) foreach @told;
	ok($status == 0, "chaos with seed $seed on $nodes nodes") or diag(join "\n", grep { defined } @told[ 0 .. 60 ]);
}
done_testing();
