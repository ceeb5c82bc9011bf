// Package store keeps the master's registry on disk: which workers there are,
// which process fills each, what was processed and what happened.
//
// # The directory
//
//	master.lock   flock: whoever holds it is the master; content: its PID
//	master-id     UUID of this state, older than the first fork
//	state.db      the registry, a bbolt database
//	counter.dat   processed_count ahead of state.db, two checksummed slots
//	backups/      copies of state.db, made before a migration
//	*.tmp         a file that is about to replace the one it is named for
//
// # The schema, version 1
//
// Values are the messages of package storepb unless it says otherwise; numbers
// are big endian.
//
//	meta
//	├── schema_version    8 bytes
//	└── record            Meta{master id, created, state directory, clean shutdown}
//	workers
//	└── worker id         Worker{unit, desired, status, reason, instance, incarnation,
//	                      spec hash, restarts, budget, last exit, outdated, port}
//	counters
//	└── processed_count   8 bytes
//	events
//	└── sequence, 8 bytes Event{time, worker, type, detail}; the newest Options.MaxEvents
//
// Package migrations holds the steps from version to version. A database of
// each released version is in testdata/schema-vN and must still open.
//
// # What a write costs, and what it is worth
//
// One goroutine, the committer, writes. Callers that come while it commits join
// one batch, which it takes as a whole and releases with a single close; a
// caller alone is committed at once, no timer waits for others. A batch that
// changes the registry is one bbolt transaction (two syncs), with the count in
// it. A batch of counts only is one write to counter.dat and one sync, and is
// brought into state.db within a second, so the count is the larger one of the
// two files. Everything acknowledged has survived a power cut, but with
// SyncInterval: then callers write counter.dat themselves, which survives the
// death of the process at once and a power cut after the next sync.
//
// # Hazards
//
//   - bbolt trusts what it maps. A damaged page can make it fault, recurse
//     without end or allocate without bound, and not all of that can be
//     recovered from. So every file is walked page by page with plain reads
//     before bbolt opens it, and all access runs under debug.SetPanicOnFault
//     with recover. Do not call bbolt's Tx.Check on an unchecked file: it runs in
//     a goroutine that neither of the two reaches.
//   - bbolt takes an empty file for a new database. Here it is a damaged one; a
//     new one is made under a temporary name.
//   - After a commit has failed, bbolt may show the new state although the disk
//     has the old one, and a second fsync would succeed without having written
//     anything. So nothing is acknowledged until the last acknowledged
//     transaction was written to a new file; see repair.
//   - An open read transaction keeps pages from being reused, and one that is
//     open while the same goroutine writes can deadlock. None leaves this
//     package.
//   - The lock belongs to the open file description, which a forked child shares
//     until its exec. A master that was killed between the two leaves its lock to
//     the child for that moment; Options.LockWait covers it.
package store
