package crashpoint

// The points, in about the order in which a master passes them.
const (
	StateFolder    Point = "state-folder"    // the state folder is made
	FolderSync     Point = "folder-sync"     // and made durable, with those that lead to it
	Lock           Point = "lock"            // mastership is taken
	LockPID        Point = "lock-pid"        // the PID is written into the lock
	Settle         Point = "settle"          // what a crash has left is made durable
	Quarantine     Point = "quarantine"      // a damaged file gets another name
	QuarantineSync Point = "quarantine-sync" // and that is made durable
	BackupsFolder  Point = "backups-folder"  // is made
	Prune          Point = "prune"           // a backup that is too many is removed, or a file kept aside
	MigrationStep  Point = "migration-step"  // one step, within the transaction
	Room           Point = "room"            // for results of requests is made sure of
	Commit         Point = "commit"          // of the registry, and the count with it
	Count          Point = "count"           // the count is written
	CountSync      Point = "count-sync"      // and synced
	Repair         Point = "repair"          // the state is written anew after a failure
	AdminListen    Point = "admin-listen"    // the admin socket appears
	AdminPath      Point = "admin-path"      // its path is left for clients: Write and Rename only
	AdminPathGone  Point = "admin-path-gone"
	Serving        Point = "serving" // health says SERVING
	Unlock         Point = "unlock"  // mastership is given up

	Port         Point = "port"          // a port is chosen
	Lease        Point = "lease"         // the lease appears
	IntentRecord Point = "intent-record" // "starting" is recorded
	LogOpen      Point = "log-open"
	Cgroup       Point = "cgroup" // the instance's cgroup is made
	Fork         Point = "fork"
	PIDRecord    Point = "pid-record"
	Adopt        Point = "adopt" // a living process is taken over
	Publish      Point = "publish"
	ReadyRecord  Point = "ready-record"
	Told         Point = "told" // what a worker tells of its services is published, or taken back
	Withdraw     Point = "withdraw"
	StopRecord   Point = "stop-record" // "stopping" is recorded
	Signal       Point = "signal"
	CgroupKill   Point = "cgroup-kill"
	CgroupGone   Point = "cgroup-gone"
	ExitRecord   Point = "exit-record"
	Removal      Point = "removal" // the record of a surplus worker is removed
	Detach       Point = "detach"

	RegisterRecord   Point = "register-record" // an endpoint from outside is recorded
	ExpireRecord     Point = "expire-record"
	DeregisterRecord Point = "deregister-record"
	OutsidePublish   Point = "outside-publish" // an endpoint from outside gets calls, or more of them
	OutsideReady     Point = "outside-ready"   // it has answered, or does not any more
	OutsideWithdraw  Point = "outside-withdraw"
)

// Files that are replaced as a whole: each stands for its [Point.Steps].
const (
	MasterID       Point = "master-id"
	Database       Point = "database" // an empty one is made
	Counter        Point = "counter"
	Rewrite        Point = "rewrite" // state.db anew, after a failure
	Backup         Point = "backup"
	MigrationCopy  Point = "migration-copy"
	Restore        Point = "restore"         // state.db from a backup
	QuarantineCopy Point = "quarantine-copy" // of a file that is damaged in part
	Replaced       Point = "replaced"        // what an operator replaces with a backup is kept
	Compact        Point = "compact"
	Export         Point = "export"    // a backup that an operator asked for
	UnitFile       Point = "unit-file" // of systemd: Write and Rename only
)

// All returns every point.
func All() []Point {
	all := []Point{
		StateFolder, FolderSync, Lock, LockPID, Settle, Quarantine, QuarantineSync, BackupsFolder, Prune, MigrationStep, Room, Commit, Count, CountSync, Repair, AdminListen, AdminPathGone, Serving, Unlock,
		Port, Lease, IntentRecord, LogOpen, Cgroup, Fork, PIDRecord, Adopt, Publish, ReadyRecord, Told, Withdraw,
		StopRecord, Signal, CgroupKill, CgroupGone, ExitRecord, Removal, Detach,
		RegisterRecord, ExpireRecord, DeregisterRecord, OutsidePublish, OutsideReady, OutsideWithdraw,
	}
	for _, file := range []Point{AdminPath, UnitFile} {
		all = append(all, file.Write(), file.Rename())
	}
	for _, file := range []Point{MasterID, Database, Counter, Rewrite, Backup, MigrationCopy, Restore, QuarantineCopy, Replaced, Compact, Export} {
		all = append(all, file.Steps()...)
	}
	return all
}
