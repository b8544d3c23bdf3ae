# Churns scalars, hashes and arrays; prints the same in every run.
use strict;
use warnings;
use Config;
use Digest::SHA qw(sha256_hex);

my $scale = shift;
my $seed = 7;
sub random { $seed = ($seed * 1103515245 + 12345) & 0x7fffffff; return int($seed / 65536) % $_[0]; }

# Strings of many sizes with random lifetimes.
my %live;
my $bytes = 0;
for my $i (1 .. 400_000 * $scale) {
    my $key = random(30_000);
    my $old = delete $live{$key};
    $bytes += length $old->[0] if $old;
    $live{$key} = ["s" x random(300), { n => $i }, [1 .. random(8)]] if random(3);
}
print "strings $bytes ", scalar(keys %live), " ", sha256_hex(join ",", map { "$_:" . length $live{$_}[0] } sort keys %live), "\n";

# Sorting, joining, splitting.
my @words = map { join "", map { chr(97 + random(26)) } 1 .. 3 + random(9) } 1 .. 100_000;
my $text = join " ", @words;
print "sort ", sha256_hex(join " ", sort @words), " ", scalar(split / /, $text), "\n";

# Regular expressions.
my %count;
$count{$1}++ while $text =~ /\b([a-z]{2})[a-z]*?(?=e)/g;
(my $changed = $text) =~ s/([aeiou])(\w)/uc($2) . $1/ge;
print "match ", sha256_hex(join ",", map { "$_=$count{$_}" } sort keys %count), " ", sha256_hex($changed), "\n";

# One string that grows to tens of megabytes.
my $long = "";
$long .= "abcdefghij" x (1 + random(100)) for 1 .. 30_000;
print "long ", length $long, " ", sha256_hex($long), "\n";

# Children.
for my $n (1 .. 8) {
    my $pid = open(my $child, "-|") // die "fork: $!";
    if ($pid == 0) {
        my @list = map { "c" x ($_ % 500) } 1 .. 20_000;
        print sha256_hex(join "", @list[0 .. 100 * $n]), "\n";
        exit $n;
    }
    my $line = <$child>;
    close $child;
    print "child $n ", $? >> 8, " $line";
}

# Threads, where this perl has them: each clones the whole interpreter.
if ($Config{useithreads}) {
    require threads;
    %live = ();
    my @threads = map {
        my $n = $_;
        threads->create(sub {
            my @list = map { "t" x (($_ * $n) % 700) } 1 .. 20_000 * $scale;
            return length join "", @list;
        })
    } 1 .. 4;
    print "thread ", $_->join, "\n" for @threads;
}
