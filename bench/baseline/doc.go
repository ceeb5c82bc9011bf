// Package baseline contains the baselines for measurements of hsu-master: the same server without the count, a
// write and its sync alone, a bare loop that starts workers, a bare server that holds connections.
//
// A baseline is written to be as fast as possible, and uses the product's own parts where it can: its server
// options, its handler, its connections.
package baseline
