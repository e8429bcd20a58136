# The bench runs, and fails when a peer ends with other rows. (Not how fast anything is.)
use strict;
use warnings;
use Cwd qw(getcwd);
use File::Path qw(make_path);
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $tree = getcwd();

# Runs it in a directory of its own. Gives exit status, output, directory.
sub bench
{
	my ($name, %env) = @_;
	my $work = "$ENV{MMR_WORK}/bench_$name";
	make_path($work);
	local @ENV{ 'MMR_WORK', 'SCALE', 'REPEAT', 'PYTHONDONTWRITEBYTECODE' } = ($work, 0.002, 2, 1);
	local @ENV{ keys %env } = values %env;
	my $output = `python3 $tree/bench/bench.py 2>&1`;
	return ($?, $output, $work);
}

my ($status, $output, $work) = bench('good', PARTS => 'a d', TOOLS => 'none native mmrepl');
is($status, 0, 'it comes to its end') or diag($output);
my $results = -e "$work/out/results.json" ? decode_json(slurp_file("$work/out/results.json")) : {};
is(join(' ', map { scalar @{ $results->{parts}{$_}{records} // [] } } qw(a d)), '18 4', 'with a number for each tool, case and round');
my $table = -e "$work/out/RESULTS.md" ? slurp_file("$work/out/RESULTS.md") : '';
like($table, qr/^\| mmrepl \| 2,000 \|.*\|$/m, 'and a table');
like($table, qr/^\| drain rate against native, insert \| at least 2 x \| [\d.]+ \| (?:met|\*\*not met\*\*) \|$/m, 'and targets');

foreach my $tool (qw(native mmrepl))
{
	($status, $output, $work) = bench("spoilt_$tool", PARTS => 'd', TOOLS => $tool, SPOIL => 1);
	isnt($status, 0, "$tool: it fails when the peer has other rows");
	like($output, qr/WRONG RESULT: $tool: late differs/, 'and says so');
	ok(!-e "$work/out/RESULTS.md", 'and has no results');
}

($status, $output) = bench('unknown', PARTS => 'z');
isnt($status, 0, 'a part that there is not');
like($output, qr/There is no part z/, 'is refused');

done_testing();
