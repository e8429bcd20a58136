# The histories of 062 on two nodes, which need not write down what comes from the only other one.
use strict;
use warnings;
use FindBin;
use MmreplCluster;

$ENV{NODES} = 2;
do "$FindBin::Bin/062_unique.pl";
die $@ if $@;
