# tap.pl COUNTS FILE...: runs the TAP files, PROVE_JOBS at once, and writes "passed failed skipped" into COUNTS.
# A file that dies, stops early or exits with an error counts as one failed test more.
use strict;
use warnings;
use TAP::Harness;

my ($counts, @files) = @ARGV;
# libraries of PostgreSQL's own tests: with the server that is tested, else any that are here
chomp(my $pgxs = `$ENV{PG_CONFIG} --pgxs`);
my ($perllib) = grep { -e "$_/PostgreSQL/Test/Cluster.pm" } ($pgxs =~ s{makefiles/pgxs\.mk$}{test/perl}r),
  glob('/usr/lib/postgresql/*/lib/pgxs/src/test/perl');
die "PostgreSQL's Perl modules for tests are not here\n" unless defined $perllib;

my $harness = TAP::Harness->new(
	{
		lib => ['test/lib', $perllib],
		jobs => $ENV{PROVE_JOBS} // 2,
		timer => 1,
		failures => 1,
		color => 0,
		verbosity => $ENV{PROVE_VERBOSE} // 0,
	});
my $aggregate = $harness->runtests(@files);

my $died = 0;
foreach my $parser ($aggregate->parsers)
{
	# tests that failed are counted one by one already
	$died++ if !$parser->failed && ($parser->exit || $parser->wait || $parser->parse_errors);
}
my $failed = $aggregate->failed + $died;
my $skipped = $aggregate->skipped;
open(my $out, '>', $counts) or die "$counts: $!";
printf $out "%d %d %d\n", $aggregate->passed - $skipped, $failed, $skipped;
close $out;
exit($failed ? 1 : 0);
