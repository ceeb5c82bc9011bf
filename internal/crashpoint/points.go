package crashpoint

// The points, approximately in the order in which a master passes them.
const (
	StateFolder    Point = "state-folder"    // the state folder is made
	FolderSync     Point = "folder-sync"     // the state folder and its parents are made durable
	Lock           Point = "lock"            // mastership is taken
	LockPID        Point = "lock-pid"        // the PID is written into the lock
	Settle         Point = "settle"          // the state that a crash has left is made durable
	Quarantine     Point = "quarantine"      // a damaged file is renamed
	QuarantineSync Point = "quarantine-sync" // that rename is made durable
	BackupsFolder  Point = "backups-folder"  // the folder of backups is made
	Prune          Point = "prune"           // a surplus backup, or a file that was kept aside, is removed
	MigrationStep  Point = "migration-step"  // one step, inside the transaction
	Room           Point = "room"            // space for the results of requests is reserved
	Commit         Point = "commit"          // of the registry, together with the count
	Count          Point = "count"           // the count is written
	CountSync      Point = "count-sync"      // the count is synced
	Repair         Point = "repair"          // the state is rewritten after a failure
	AdminListen    Point = "admin-listen"    // the admin socket is made
	RegistryListen Point = "registry-listen" // the socket of the module registry is made
	AdminPath      Point = "admin-path"      // its path is written for clients: Write and Rename only
	AdminPathGone  Point = "admin-path-gone"
	Serving        Point = "serving" // health reports SERVING
	Unlock         Point = "unlock"  // mastership is released

	UnitRecord   Point = "unit-record"   // the wanted units are recorded
	Port         Point = "port"          // a port is chosen
	BeforeRecord Point = "before-record" // "starting" is recorded, before start.before runs
	StartBefore  Point = "start-before"  // start.before runs
	Lease        Point = "lease"         // the lease is made
	IntentRecord Point = "intent-record" // "starting" is recorded
	NotifySocket Point = "notify-socket" // the notify socket of a worker is put in its place
	LogOpen      Point = "log-open"
	Scope        Point = "scope"         // the scope of the workers is made
	Cgroup       Point = "cgroup"        // the instance's cgroup is made
	CgroupMove   Point = "cgroup-move"   // a process is moved out of the cgroup whose controllers are enabled
	CgroupEnable Point = "cgroup-enable" // a controller is enabled for the workers' cgroups
	CgroupLimit  Point = "cgroup-limit"  // a limit of a worker's cgroup is set
	Fork         Point = "fork"
	Limit        Point = "limit" // a limit of a start helper is set
	Exec         Point = "exec"  // a start helper is told to execute the program
	PIDRecord    Point = "pid-record"
	Adopt        Point = "adopt" // a living process is adopted
	Publish      Point = "publish"
	ReadyRecord  Point = "ready-record"
	Told         Point = "told" // the services that a worker announced are published, or withdrawn
	// AnnounceRecord: a publication of a worker at the module registry is recorded, or its removal.
	AnnounceRecord Point = "announce-record"
	Withdraw       Point = "withdraw"
	StopRecord     Point = "stop-record"  // "stopping" is recorded
	StopCommand    Point = "stop-command" // stop.command runs
	HookRecord     Point = "hook-record"  // the lease of stop.after is recorded, for a worker that has ended by itself
	Signal         Point = "signal"
	CgroupKill     Point = "cgroup-kill"
	CgroupGone     Point = "cgroup-gone"
	StopAfter      Point = "stop-after" // stop.after runs
	ExitRecord     Point = "exit-record"
	Removal        Point = "removal" // the record of a surplus worker is removed
	Detach         Point = "detach"

	LogMark      Point = "log-mark"       // the lines that a rotation has copied count as rotated
	LogMarkSync  Point = "log-mark-sync"  // so do they after a loss of power
	LogBlank     Point = "log-blank"      // the rest of the line that the cut of a log divides is blanked
	LogBlankSync Point = "log-blank-sync" // and synced
	LogCollapse  Point = "log-collapse"   // the blocks of rotated lines are removed, or those of a hole
	LogPunch     Point = "log-punch"      // rotated lines become a hole
	LogPunchSync Point = "log-punch-sync"
	LogUnmark    Point = "log-unmark"   // the mark becomes part of the hole
	LogTruncate  Point = "log-truncate" // a log is emptied
	LogRest      Point = "log-rest"     // the lines that are not rotated are written into an emptied log
	LogEvent     Point = "log-event"    // what happened to a log is recorded
	LogRemove    Point = "log-remove"   // a rotated file, or an unfinished one, is removed

	RegisterRecord   Point = "register-record" // a registered endpoint is recorded
	ExpireRecord     Point = "expire-record"
	DeregisterRecord Point = "deregister-record"
	OutsidePublish   Point = "outside-publish" // a registered endpoint gets calls, or calls of more services
	OutsideReady     Point = "outside-ready"   // a registered endpoint becomes ready or unready
	OutsideWithdraw  Point = "outside-withdraw"

	UpgradeCopy  Point = "upgrade-copy"  // the state is copied for the check of a new program
	UpgradeCheck Point = "upgrade-check" // the new program is run as a check
	UpgradeExec  Point = "upgrade-exec"  // the new program is executed: there is no moment after
	// UpgradeRecord: the outcome is recorded.
	UpgradeRecord Point = "upgrade-record"

	FoundRecord Point = "found-record" // the process of an unmanaged unit is recorded as found or gone
)

// Files that are replaced as a whole: each stands for its [Point.Steps].
const (
	MasterID       Point = "master-id"
	Database       Point = "database" // an empty database is made
	Counter        Point = "counter"
	Rewrite        Point = "rewrite" // state.db rewritten, after a failure
	Backup         Point = "backup"
	MigrationCopy  Point = "migration-copy"
	Restore        Point = "restore"         // state.db from a backup
	QuarantineCopy Point = "quarantine-copy" // of a partly damaged file
	Replaced       Point = "replaced"        // the state that an operator replaces with a backup is kept
	Compact        Point = "compact"
	Export         Point = "export"       // a backup that an operator requested
	UnitFile       Point = "unit-file"    // of systemd: Write and Rename only
	LogCopy        Point = "log-copy"     // of the lines that a rotation moves
	LogCompress    Point = "log-compress" // a rotated file is compressed
	SecretKey      Point = "secret-key"
)

// All returns every point.
func All() []Point {
	all := []Point{
		StateFolder, FolderSync, Lock, LockPID, Settle, Quarantine, QuarantineSync, BackupsFolder, Prune, MigrationStep,
		Room, Commit, Count, CountSync, Repair, AdminListen, RegistryListen, AdminPathGone, Serving, Unlock,
		UnitRecord, Port, BeforeRecord, StartBefore, Lease, IntentRecord, NotifySocket, LogOpen, Scope, Cgroup,
		CgroupMove, CgroupEnable, CgroupLimit, Fork, Limit, Exec, PIDRecord,
		Adopt, Publish, ReadyRecord, Told, AnnounceRecord, Withdraw, StopRecord, StopCommand, HookRecord, Signal,
		CgroupKill, CgroupGone, StopAfter, ExitRecord, Removal, Detach,
		RegisterRecord, ExpireRecord, DeregisterRecord, OutsidePublish, OutsideReady, OutsideWithdraw,
		LogMark, LogMarkSync, LogBlank, LogBlankSync, LogCollapse, LogPunch, LogPunchSync, LogUnmark, LogTruncate,
		LogRest, LogEvent, LogRemove, UpgradeCopy, UpgradeCheck, UpgradeExec, UpgradeRecord, FoundRecord,
	}
	for _, file := range []Point{AdminPath, UnitFile} {
		all = append(all, file.Write(), file.Rename())
	}
	for _, file := range []Point{
		MasterID, Database, Counter, Rewrite, Backup, MigrationCopy, Restore, QuarantineCopy, Replaced, Compact, Export,
		LogCopy, LogCompress, SecretKey,
	} {
		all = append(all, file.Steps()...)
	}
	return all
}
