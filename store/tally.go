package store

// tally is what was counted: processed is all of it, and keyed the part that came by
// CountOnce. The two parts are made durable in different orders, which is why they are
// told apart:
//
//   - What has no id goes into counter.dat first, or, with SyncInterval, into nothing
//     else for a while. There the larger one of the two files is right.
//   - What has an id goes into state.db first, in the transaction that stores its
//     result. counter.dat knows of it only afterwards, so that whatever a crash leaves,
//     a request is counted exactly where its result is stored, and a retry of one that
//     is not stored was not counted.
//
// The total alone would not do: with SyncInterval others write counter.dat while a
// result is committed, and then neither file has all of it.
type tally struct{ processed, keyed int64 }

// unknownKeyed stands for a part that nothing tells.
const unknownKeyed = -1

// settled is what was counted where a crash has left these two.
func settled(counter reading, database tally) tally {
	c := counter.slot.tally
	if counter.slot.sequence == 0 || c.keyed < 0 || database.keyed < 0 || c.keyed > database.keyed {
		// There is no counter; or one of a release that did not know the parts; or the
		// database was made anew since, see startedAnew, and the counter was not yet.
		return larger(c, database)
	}
	sum := max(c.processed-c.keyed, database.processed-database.keyed) + database.keyed
	if sum < 0 { // beyond what fits: one of them is none of ours
		return larger(c, database)
	}
	return tally{sum, database.keyed}
}

// larger is the one of two that has more, for files of which one need not come from
// the other.
func larger(a, b tally) tally {
	if b.processed > a.processed {
		a, b = b, a
	}
	if a.keyed < 0 {
		a.keyed = max(0, min(b.keyed, a.processed))
	}
	return a
}

// startedAnew is the count of a database that takes the place of another one. It has no
// part for itself, so that beside whatever counter a crash leaves the larger one is
// right: see settled. The database must be made before the counter.
func startedAnew(processed int64) tally { return tally{processed: processed} }
