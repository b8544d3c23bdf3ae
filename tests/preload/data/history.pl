# Writes N commits for git fast-import: a tree of text files that change bit by
# bit, a few binary ones, renames and merges. The same in every run.
use strict;
use warnings;

my $commits = shift;
my $seed = 3;
sub random { $seed = ($seed * 1103515245 + 12345) & 0x7fffffff; return int($seed / 65536) % $_[0]; }

binmode STDOUT;
my %files = ("README" => ["a repository made by a script"]);
sub content { return join("\n", @{ $_[0] }) . "\n"; }
sub data { return "data " . length($_[0]) . "\n$_[0]\n"; }

for my $n (1 .. $commits) {
    my @changed = ("README");
    push @{ $files{README} }, "commit $n";
    for (1 .. 1 + random(3)) {
        my $name = sprintf "dir%d/sub%d/file%d.txt", random(6), random(5), random(8);
        my $lines = $files{$name} //= [map { "line $_ of $name " . random(1000) } 1 .. 20 + random(200)];
        $lines->[random(scalar @$lines)] = "changed in $n " . "x" x random(80);
        push @changed, $name;
    }
    print "commit refs/heads/main\nmark :$n\n";
    printf "committer A Script <script\@example.org> %d +0000\n", 1_600_000_000 + $n * 60;
    print data("change $n\n\nwith a body of " . "words " x random(30));
    print "from :", $n - 1, "\n" if $n > 1;
    print "merge :", $n - 20, "\n" if $n > 40 && $n % 50 == 0;
    my %once;
    print "M 100644 inline $_\n", data(content($files{$_})) for grep { !$once{$_}++ } @changed;
    if ($n % 25 == 0) {
        print "M 100755 inline binary/$n\n", data(join "", map { chr random(256) } 1 .. 5000 + random(40000));
    }
}
print "reset refs/tags/middle\nfrom :", int($commits / 2), "\n\ndone\n";
