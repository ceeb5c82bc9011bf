// Package baseline is what hsu-master is measured against: the same server
// without the count, a bbolt commit alone, a bare loop that starts workers, a
// bare server that holds connections.
//
// A baseline is as good as it can be written, and takes what it can from the
// product itself: its server options, its handler, its connections.
package baseline
