// Command stub is the smallest worker that answers a master: a thousand of them fit into a machine, so that the growth
// of a master with the number of its workers can be measured. It knows as much of HTTP/2 as Pings need, uses the
// system calls of sockets itself, and so has about 1 MiB of memory of its own.
package main
