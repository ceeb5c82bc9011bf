// Package store keeps the master's registry on disk: which workers there are,
// which process fills each, what was processed and what happened.
//
// # The directory
//
//	master.lock   flock: whoever holds it is the master; content: its PID, and
//	              nothing after an end that has left everything on the disk
//	master-id     UUID of this state, older than the first fork
//	state.db      the registry, a bbolt database
//	counter.dat   processed_count ahead of state.db, two checksummed slots
//	backups/      state-SEQUENCE-schemaN-TIME.db: copies of state.db, made while the
//	              master runs and before a migration
//	*.damaged-TIME    what could not be trusted and was kept aside, see Recover
//	*.replaced-TIME   what Restore has replaced
//	*.tmp         a file that is about to replace the one it is named for
//
// # The schema, version 2
//
// Values are the messages of package storepb unless it says otherwise; numbers
// are big endian.
//
//	meta
//	├── schema_version    8 bytes
//	└── record            Meta{master id, created, state directory, clean shutdown,
//	                      since when the count may be short}
//	workers
//	└── worker id         Worker{unit, desired, status, reason, instance, incarnation,
//	                      spec hash, restarts, budget, last exit, outdated, port}
//	counters
//	├── processed_count   8 bytes
//	├── keyed_count       8 bytes, how many of these came with an id; since version 2
//	└── counted_at        8 bytes, when that was written, in nanoseconds of Unix time
//	events
//	└── sequence, 8 bytes Event{time, worker, type, detail}; the newest Options.MaxEvents
//	services              since version 2
//	└── service " " address Registration{service, address, ttl, registered}
//	requests              since version 2
//	└── id of a request   Result{method, digest of the request, response, when it was
//	                      stored}; the newest, and none older than Options.RequestTTL
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
// A request that has an id is counted with its result, in one bbolt transaction, with
// either mode. Its count is in state.db before it is in counter.dat, all others the
// other way round, and so the whole count is that of the larger one in what came
// without an id, and that of state.db in what came with one: see tally.
//
// Results are as safe as the registry is, but no safer than its last backup where
// state.db itself is lost: the count then is still whole, and a retry of what was
// stored since is counted again.
//
// # When nothing can be written
//
// A full disk stops nothing: counting overwrites what is there, and so does the
// registry, which has space of its own to grow into (see reserve). Where a write or a
// sync fails all the same, nothing is acknowledged (ErrUnavailable, with the cause and
// what to do) until the state could be written to a new file, which is tried on and
// on. A start that fails so comes up: what was recorded can be read, and the workers
// that it names must be looked after.
//
// # Damage
//
// A file that cannot be trusted is refused, or, with Recover, kept aside: renamed,
// of each name the first and the newest seven. In the place of state.db then comes
// the newest backup of which everything can be read, and where there is none an
// empty registry; what is newer, the living workers tell package supervisor. A
// database that is missing beside other traces of a master is the same case with
// either policy, so that a crash between the rename and the restore is too.
//
// Newest is what has the highest number of its last transaction, and no clock is
// asked. A database that takes the place of another goes on above the highest number
// that any had, so that its backups are newer than all before.
//
// The count outlives the database in counter.dat. Only where that is lost too, or
// nothing says that it is whole, may the count be short, and then both files say
// since when.
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
//   - What the next process reads after a crash may be in the kernel's cache alone,
//     and to commit on top of it can overwrite what the state on the disk still
//     needs. So it is made durable first; see settle.
//   - The state may be deleted, moved or unmounted under the master, and writes to
//     the open files then succeed where no next master looks. So their names are
//     looked at after each write. What was deleted is written back, and what was
//     moved is waited for; another state in its place is left alone. See vanished.go.
//   - An open read transaction keeps pages from being reused, and one that is
//     open while the same goroutine writes can deadlock. None leaves this
//     package.
//   - The lock belongs to the open file description, which a forked child shares
//     until its exec. A master that was killed between the two leaves its lock to
//     the child for that moment; Options.LockWait covers it.
package store
