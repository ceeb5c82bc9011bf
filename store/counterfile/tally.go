package counterfile

// Tally is a count of requests: Processed is the total, and Keyed is the part that came with an id. The two parts
// are kept separately because they are made durable in different orders:
//
//   - A request without an id is written to counter.dat first; with SyncInterval,
//     only there for a while. For these, the larger count of the two files is right.
//   - A request with an id is written to state.db first, in the transaction that stores
//     its result, and to counter.dat only afterwards. So after any crash, a request is
//     counted if and only if its result is stored, and a retry of a request whose result
//     is not stored is not counted twice.
//
// The total alone is not enough: with SyncInterval, callers write counter.dat while a result is being committed,
// and then neither file has the complete count.
type Tally struct{ Processed, Keyed int64 }

// UnknownKeyed stands for a keyed part that is not known.
const UnknownKeyed = -1

// Merged returns the count that results from the two files after a crash.
func Merged(counter Reading, database Tally) Tally {
	c := counter.Newest.Tally
	if counter.Newest.Sequence == 0 || c.Keyed < 0 || database.Keyed < 0 || c.Keyed > database.Keyed {
		// Either there is no counter, or an older release wrote it and did not separate the parts, or the database
		// was replaced since (see StartedAnew) and the counter was not yet.
		return Larger(c, database)
	}
	sum := max(c.Processed-c.Keyed, database.Processed-database.Keyed) + database.Keyed
	if sum < 0 { // overflow: one of the two does not belong to this state
		return Larger(c, database)
	}
	return Tally{sum, database.Keyed}
}

// Larger returns the larger of two counts. It is for files of which neither need derive from the other.
func Larger(a, b Tally) Tally {
	if b.Processed > a.Processed {
		a, b = b, a
	}
	if a.Keyed < 0 {
		a.Keyed = max(0, min(b.Keyed, a.Processed))
	}
	return a
}

// StartedAnew returns the count for a database that replaces another one. Its keyed part is 0, so that Merged
// takes the larger total, whatever counter a crash leaves. The database must be made before the counter.
func StartedAnew(processed int64) Tally { return Tally{Processed: processed} }
