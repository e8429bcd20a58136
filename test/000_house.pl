# The house: what src/README.md promises about the source is so. Runs in a tree that has been built.
use strict;
use warnings;
use MmreplCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my (%floor, %room);
foreach (split /\n/, slurp_file('src/README.md'))
{
	$floor{$2} = $1, $room{$2} = $3 if /^\| *(\d+) *\| *`?(\w+)`? *\| *(.*?) *\|$/;
}
my @sources = sort map { m{^src/(\w+)\.c$} } glob('src/*.c');
my @headers = sort map { m{^src/(\w+)\.h$} } glob('src/*.h');
my %is_header = map { $_ => 1 } @headers;
my %is_room = map { $_ => 1 } @sources, @headers;

# One test for a list of what is wrong.
sub none
{
	my ($name, @wrong) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join("\n", @wrong), '', $name);
	return;
}

cmp_ok(scalar @sources, '>', 0, 'there are sources');
none('every source and header is in the floors table', grep { !defined $floor{$_} } sort keys %is_room);
none('every room of the table is there', grep { !$is_room{$_} } sort keys %floor);
none('a header says the same floor',
	grep { my ($said) = slurp_file("src/$_.h") =~ /^ *\*.*\bFloor (\d+)/m; ($said // '') ne ($floor{$_} // '') } @headers);
none('every room says what it is for', grep { length($room{$_}) < 10 } sort keys %room);

# Calls go down only: by what is included, and by what the linker is asked for.
my @up;
my %text = map { $_ => slurp_file($_) } glob('src/*.c src/*.h');
foreach my $file (sort keys %text)
{
	my ($me) = $file =~ m{(\w+)\.[ch]$};
	foreach my $other ($text{$file} =~ /^\s*#\s*include\s+"(\w+)\.h"/mg)
	{
		next if !$is_header{$other} || $other eq $me;
		push @up, "$file (floor " . ($floor{$me} // '?') . ") includes $other.h (floor " . ($floor{$other} // '?') . ')'
		  if ($floor{$other} // 99) >= ($floor{$me} // 0);
	}
}
none('includes go to lower floors only', @up);

my (%defined_in, %needs, %defines);
foreach my $me (@sources)
{
	foreach (split /\n/, `nm src/$me.o`)
	{
		my ($type, $symbol) = /\b([A-Za-z]) (\w+)$/ or next;
		if ($type eq 'U') { push @{ $needs{$me} }, $symbol; }
		elsif ($type =~ /[A-Z]/) { $defined_in{$symbol} = $me; push @{ $defines{$me} }, $symbol; }
	}
}
cmp_ok(scalar keys %defined_in, '>', 10, 'nm tells what the objects define');
my @calls;
foreach my $me (@sources)
{
	foreach my $symbol (@{ $needs{$me} // [] })
	{
		my $other = $defined_in{$symbol} // next;
		push @calls, "$me (floor " . ($floor{$me} // '?') . ") uses $symbol of $other (floor " . ($floor{$other} // '?') . ')'
		  if ($floor{$other} // 99) >= ($floor{$me} // 0);
	}
}
none('calls go to lower floors only', @calls);

# One header a source; without one only if all it exports is entered from outside: SQL functions and workers' mains.
my $entry = qr/^(?:mmrepl_\w+|pg_finfo_\w+|mmr_\w+_main|_PG_init|Pg_magic_func)$/;
none('every source has its header, or only entry points',
	map { my $me = $_; map { "$me exports $_" } grep { !/$entry/ } @{ $defines{$me} // [] } }
	  grep { !$is_header{$_} } @sources);
none('the library exports its own names only',
	grep { !/^(?:mmr_|mmrepl_|pg_finfo_|Pg_magic_func$|_PG_init$)/ }
	  map { /(\w+)$/ } split /\n/, `nm -D --defined-only mmrepl.so`);

# Sizes. Functions are what stands between a { and a } at the start of a line.
my (@long, @huge, $lengthy);
foreach my $file (sort keys %text)
{
	my @lines = split /\n/, $text{$file};
	push @long, "$file has " . @lines . ' lines' if @lines > 600;
	my $start;
	foreach my $n (0 .. $#lines)
	{
		$start = $n if $lines[$n] eq '{';
		next if $lines[$n] ne '}' || !defined $start;
		my $length = $n - $start + 1;
		push @huge, "$file:" . ($start + 1) . " function of $length lines" if $length > 100;
		note("$file:" . ($start + 1) . " function of $length lines") if $length > 60;
		$start = undef;
	}
}
none('files have 600 lines at most', @long);
none('functions have 100 lines at most (about 60 are meant)', @huge);

# Rules that a build for a test leaves out: named in one header, looked at in one room, and this build has them all.
my %break = map { $_ => [] } $text{'src/breaks.h'} =~ /defined\((MMR_BREAK_\w+)\)/g;
foreach my $file (grep { $_ ne 'src/breaks.h' } sort keys %text)
{
	push @{ $break{$_} }, $file foreach do { my %seen; grep { !$seen{$_}++ } $text{$file} =~ /\b(MMR_BREAK_\w+)\b/g };
}
none('a rule can be broken in one place', grep { @{ $break{$_} } != 1 } sort keys %break);
none('this build breaks none', grep { slurp_file('mmrepl.so') =~ /$_/ } 'built without one of its rules');

none('PG_VERSION_NUM stands in compat.h only', grep { $text{$_} =~ /PG_VERSION_NUM/ && $_ ne 'src/compat.h' } sort keys %text);
none('nothing sleeps by the clock', grep { $text{$_} =~ /\b(?:pg_sleep|pg_usleep|usleep|sleep) *\(/ } sort keys %text);
none('nothing is left unfinished', grep { $text{$_} =~ /\b(?:TODO|FIXME|XXX)\b/ } sort keys %text);
none('nor prints other than by ereport', grep { $text{$_} =~ /\b(?:printf|fprintf|puts) *\(/ } sort keys %text);
is(system('make', '-s', 'headerscheck', "PG_CONFIG=$ENV{PG_CONFIG}"), 0, 'every header compiles alone');
is(system('make', '-s', 'breakscheck', "PG_CONFIG=$ENV{PG_CONFIG}"), 0, 'every rule can be left out');

# What CREATE EXTENSION makes.
my $node = new_node('house');
sql($node, 'CREATE EXTENSION mmrepl');
my $own = q{FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid AND d.refclassid = 'pg_extension'::regclass
	WHERE e.extname = 'mmrepl' AND d.deptype = 'e'};
my $functions = "pg_proc WHERE oid IN (SELECT d.objid $own AND d.classid = 'pg_proc'::regclass)";
cmp_ok(sql($node, "SELECT count(*) FROM $functions"), '>', 10, 'there are functions');
none('no function is for PUBLIC',
	sql($node, "SELECT oid::regprocedure FROM $functions AND
		EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0) ORDER BY 1"));
none('every function has a comment',
	sql($node, "SELECT oid::regprocedure FROM $functions AND obj_description(oid, 'pg_proc') IS NULL ORDER BY 1"));
none('functions that are not C fix their search_path, pg_temp last',
	sql($node, "SELECT oid::regprocedure FROM $functions AND prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c')
		AND NOT coalesce(proconfig::text ~ 'search_path=pg_catalog, (mmrepl, )?pg_temp', false) ORDER BY 1"));
none('no function of definer rights builds on the caller\'s path',
	sql($node, "SELECT oid::regprocedure FROM $functions AND prosecdef AND NOT coalesce(proconfig::text ~ 'search_path=', false) ORDER BY 1"));
my $relations = "pg_class WHERE relkind IN ('r', 'v', 'm', 'S') AND oid IN (SELECT d.objid $own AND d.classid = 'pg_class'::regclass)";
none('no relation is for PUBLIC',
	sql($node, "SELECT oid::regclass FROM $relations AND
		EXISTS (SELECT FROM aclexplode(relacl) WHERE grantee = 0) ORDER BY 1"));
none('every view has a comment and goes to pg_monitor',
	sql($node, "SELECT oid::regclass FROM $relations AND relkind = 'v' AND relname NOT LIKE E'\\\\_%'
		AND (obj_description(oid, 'pg_class') IS NULL OR NOT has_table_privilege('pg_monitor', oid, 'SELECT')) ORDER BY 1"));
none('conninfo is for the owner only', sql($node, "SELECT attrelid::regclass FROM pg_attribute WHERE attname = 'conninfo'
	AND attrelid IN (SELECT oid FROM $relations) AND has_column_privilege('pg_monitor', attrelid, attnum, 'SELECT')"));

# What users can name stands in the README.
my $readme = -e 'README.md' ? slurp_file('README.md') : '';
my @names = split /\n/, sql($node, "SELECT name FROM pg_settings WHERE name LIKE 'mmrepl.%'
	UNION SELECT proname::text FROM $functions AND proname NOT LIKE E'\\\\_%' AND prorettype <> 'trigger'::regtype
	UNION SELECT relname::text FROM $relations AND relkind = 'v' AND relname NOT LIKE E'\\\\_%' ORDER BY 1");
none('README.md names every setting, function and view', grep { $readme !~ /\b\Q$_\E\b/ } @names);

$node->stop;
log_clean($node);
done_testing();
