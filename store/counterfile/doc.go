// Package counterfile reads and writes counter.dat, which holds the count of processed requests ahead of state.db, and
// derives the count from the two files after a crash.
package counterfile
