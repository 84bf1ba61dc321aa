# The service of the question `daemon`: listens at a port of 127.0.0.1 and ends on SIGTERM.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 16, ReuseAddr => 1)
  or die "listen: $!";
while (my $connection = $server->accept) { close $connection }
