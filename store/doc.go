// Package store keeps the master's registry on disk: the units, the workers, the process of each worker, the
// count of processed requests and the history of events.
//
// # The directory
//
//	master.lock   flock; its holder is the master. Content: the PID of the
//	              holder, blank after a shutdown that synced everything
//	master-id     UUID of this state, written before the first fork
//	state.db      the registry, a bbolt database
//	secret.key    key of the HMACs of environments in the registry; not in backups
//	counter.dat   processed_count ahead of state.db, two checksummed copies
//	backups/      state-SEQUENCE-schemaN-TIME.db: copies of state.db, made while the
//	              master runs and before a migration
//	*.damaged-TIME    damaged files that were kept aside, see Recover
//	*.replaced-TIME   files that Restore replaced
//	*.tmp         a file that is about to replace the file it is named after
//
// # The schema, version 3
//
// Values are messages of package storepb unless noted otherwise; numbers are big endian.
//
//	meta
//	├── schema_version    8 bytes
//	└── record            Meta{master id, created, state directory, clean shutdown,
//	                      since when the count may be short}
//	workers
//	└── worker id         Worker{unit, desired, status, reason, instance, incarnation,
//	                      spec hash, restarts, budget, last exits, outdated, port,
//	                      services, key and HMAC of its environment}
//	counters
//	├── processed_count   8 bytes
//	├── keyed_count       8 bytes, how many of these came with an id; since version 2
//	└── counted_at        8 bytes, when that was written, in nanoseconds of Unix time
//	events
//	└── sequence, 8 bytes Event{time, worker, unit, type, detail, operator}; the newest
//	                      Options.MaxEvents, and of the older ones the newest
//	                      records.MaxActs that have an operator
//	services              since version 2
//	└── service " " address Registration{service, address, ttl, registered}
//	units                 since version 3
//	└── unit name         Unit{kind, replicas, scale, disabled, retired, spec hash,
//	                      changed}; a retired unit's record is removed with that of
//	                      its last worker
//	requests              since version 2
//	└── id of a request   Result{method, digest of the request, response, when it was
//	                      stored}; the newest, and none older than Options.RequestTTL
//
// Package migrations holds the steps from version to version. A database of each released version is in
// testdata/schema-vN and must still open.
//
// # Cost and durability of a write
//
// One goroutine, the committer, writes state.db and counter.dat; with SyncInterval, callers also write counter.dat.
// Callers that arrive during a commit join one batch. The committer takes the batch as a whole and releases its
// callers with a single close. A single caller is committed at once; no timer delays it. With many callers, a batch of
// counts waits for most of those that the last commit has released, at most as long as that commit took. A batch that
// changes the registry is one bbolt transaction (two syncs), which includes the count. A batch that contains only
// counts is one write to counter.dat and one sync. It is brought into state.db within a second, so the valid count is
// the larger one of the two files.
//
// With SyncAlways, everything acknowledged survives a power cut. With SyncInterval, callers write their counts to
// counter.dat themselves: these survive the death of the process at once, and a power cut after the next sync.
//
// In both modes, a request that has an id is counted and its result is stored in the same bbolt transaction. Its
// count is in state.db before it is in counter.dat; other counts are written in the opposite order. The total is
// therefore the larger of the two files' counts of requests without an id, plus state.db's count of requests with
// one: see counterfile.Tally.
//
// Results are as durable as the registry. If state.db itself is lost, the results stored since its last backup are
// lost with it: the count is still complete, but a retry of one of those requests is counted again.
//
// # When nothing can be written
//
// A full disk stops neither counting, which overwrites existing blocks, nor the registry, which has reserved space
// to grow into (see boltfile.File.Reserve). If a write or a sync fails nevertheless, nothing is acknowledged
// (callers get ErrUnavailable, with the cause and a remedy) until the state has been written to a new file; the
// committer retries this until it succeeds. If a write to an existing state fails in this way at a start, Open still
// succeeds: the records can be read, and the workers in them need supervision.
//
// # Damage
//
// A damaged file is refused or, with Recover, kept aside under another name; of each name the first and the newest
// seven are kept. state.db is then replaced by the newest backup, with preference to backups whose records can all
// be read, or by an empty registry if there is no good backup. Package supervisor learns anything newer from the
// living workers. If the database is missing but there are other traces of a master, it is recovered in the same
// way, with either policy. This also covers a crash between the rename and the restore.
//
// The newest backup is the one with the highest transaction number; clocks are not consulted. A database that
// replaces another one continues above the highest number that any of them had, so that its backups are newer than
// all earlier ones.
//
// The count survives the loss of the database in counter.dat. The count may be short only if counter.dat is lost
// too or cannot be proven complete; both files then record since when.
//
// # The parts
//
// A [DB] is a facade: it has mastership over a state directory (package statedir), the database's own record, the index
// of the stored results (package once), and a pipeline (package commit), in which all writes happen. The pipeline has a
// queue, to which callers add requests, and a committer, which takes them as a batch. The committer has a writer, which
// makes a batch durable in the two files, and a repairer, which rewrites them if that has failed. The teller notifies
// the callers of Count and CountOnce. The counter is the count and the file counter.dat. Each part has a lock or an
// owner of its own.
//
// An opener exists only during [Open], an operation only during [Restore], [Compact] and [Migrate], and a rebuilder
// (package rebuild) only while a lost database is made anew. Package records knows the content of a database, package
// backups which copies there are. The files themselves are in the packages boltfile, counterfile and statefile, which
// know nothing of workers. Outside of store, only store and records are imported.
//
// # Hazards
//
//   - bbolt trusts the pages that it maps. A damaged page can make it fault, recurse
//     without end or allocate without bound, and not all of that can be
//     recovered from. So every file is walked page by page with plain reads
//     before bbolt opens it, and all access runs under debug.SetPanicOnFault
//     with recover. Do not call bbolt's Tx.Check on an unchecked file: it runs in
//     a goroutine that neither of the two covers.
//   - bbolt treats an empty file as a new database. This package treats it as a
//     damaged one; it creates new databases under a temporary name.
//   - After a commit has failed, bbolt may show the new state although the disk
//     has the old one, and a second fsync could succeed without having written
//     anything. So nothing is acknowledged until the last acknowledged
//     transaction has been written to a new file; see the repairer in package commit.
//   - After a crash, the next process may read data that is only in the kernel's
//     cache, and a commit on top of it can overwrite pages that the state on the
//     disk still needs. So that data is made durable first; see boltfile.File.SyncMeta.
//   - The state may be deleted, moved or unmounted while the master runs. Writes to
//     the open files then still succeed, but the next master does not find them.
//     So the paths are checked after each write. Deleted files are written back.
//     If the files were moved, the master waits for them to return. If another
//     state is in their place, it is left alone. See the repairer in package commit.
//   - An open read transaction keeps pages from being reused, and one that is
//     open while the same goroutine writes can deadlock. No transaction is
//     exposed outside this package.
//   - The lock belongs to the open file description, which a forked child shares
//     until its exec. If a master is killed between the two, the child holds the
//     lock for that moment; Options.LockWait covers it.
package store
