// Package eventtype has the types of the events in the history, for the packages that record them and for the
// configuration file, in which commands are configured for them.
package eventtype

// Types of the events of a worker besides its statuses, which are types too.
const (
	Started     = "started"
	Adopted     = "adopted"
	Exited      = "exited"
	Gone        = "gone"
	Found       = "found"
	Held        = "held"
	Leftover    = "leftover"
	PortChanged = "port-changed"
	Removed     = "removed"
	RunDue      = "run-due"
	RunMissed   = "run-missed"
	RunSkipped  = "run-skipped"
	HookFailed  = "hook-failed"
	Unenforced  = "limits-unenforced"
	Memory      = "memory"
	LogFallback = "log-fallback"
	Truncated   = "log-truncated"
	LogDeleted  = "log-deleted"
	ReadyLost   = "ready-lost"
	Start       = "start"
	Stop        = "stop"
	Signal      = "signal"
	Restart     = "restart"
)

// Types of the events of a unit, a service or the master.
const (
	Scaled        = "unit-scaled"
	Reloaded      = "reloaded"
	ReloadFailed  = "reload-failed"
	Registered    = "service-registered"
	Deregistered  = "service-deregistered"
	Expired       = "service-expired"
	MasterStarted = "master-started"
	MasterStopped = "master-stopped"
	MasterCrashed = "master-crashed"
	Down          = "down"
	Detached      = "detached"
	Upgraded      = "upgraded"
	UpgradeFailed = "upgrade-failed"
	Enable        = "enable"
	Disable       = "disable"
	// FromBackup and FromProcesses record how a lost database was recovered.
	FromBackup    = "recovered-from-backup"
	FromProcesses = "recovered-from-processes"
)

// Type is a type of events with its meaning, as in docs/EVENTS.md.
type Type struct{ Name, Doc string }

// All are all types of events.
var All = []Type{
	{"waiting", "The worker waits for the units that it depends on."},
	{"starting", "The start of the worker is recorded, and its process is started next."},
	{Started, "The process of the worker runs."},
	{Adopted, "A starting master has taken over the living process of the worker."},
	{"running", "The worker is ready."},
	{"unhealthy", "The worker fails its health check and gets no calls."},
	{"stopping", "The worker is about to be stopped, for the reason in the detail."},
	{Exited, "The process of the worker has ended, with the exit code or signal in the detail."},
	{Gone, "The process has ended, and how is not known, such as that of an earlier boot or of an unmanaged unit."},
	{"stopped", "The worker is stopped and stays so."},
	{"backoff", "The worker has ended, and is restarted after a delay."},
	{"failed", "The worker has used up its restarts, or cannot be started."},
	{"completed", "The worker has ended with a success code, and is not restarted."},
	{"scheduled", "The worker waits for the next due time of its schedule."},
	{RunDue, "A run of a unit with a schedule is due and begins."},
	{RunMissed, "Runs were due while no master ran."},
	{RunSkipped, "A run was due while the one before went on."},
	{Memory, "The worker uses more memory than `memory_restart`, and is restarted."},
	{HookFailed, "A command of `start.before`, `stop.command` or `stop.after` has failed."},
	{Unenforced, "Limits of the worker cannot be enforced."},
	{PortChanged, "The worker gets another port, as another process has its own."},
	{Held, "It cannot be told whether the process of the worker lives, so none is started."},
	{Leftover, "Processes of the worker could not be killed."},
	{ReadyLost, "The master crashed while the worker was starting, and a READY=1 may have been lost."},
	{LogFallback, "The output of the worker goes to its file, as it cannot go to the journal."},
	{Truncated, "The worker has truncated its own log."},
	{LogDeleted, "The log was deleted or moved while the worker writes to it."},
	{Removed, "The worker is not wanted any more, and forgotten; its log is kept."},
	{Start, "An operator has started the worker."},
	{Stop, "An operator has stopped the worker, until a start."},
	{Signal, "An operator has sent the worker the signal in the detail."},
	{Restart, "An operator has begun to restart the worker, or the workers of the unit in the detail."},
	{"restart-resumed", "A master goes on with the restart that the one before had begun."},
	{"restart-completed", "All workers of the restart are replaced."},
	{"restart-stopped", "The restart has stopped at a worker, for the reason in the detail."},
	{Found, "The process of an unmanaged unit is found."},
	{"absent", "There is no process of an unmanaged unit."},
	{Scaled, "An operator has set the number of workers of a unit."},
	{Enable, "An operator has enabled a unit."},
	{Disable, "An operator has disabled a unit: its workers are stopped, and stay so until it is enabled."},
	{Reloaded, "The units were read again, and the changes in the detail have begun."},
	{ReloadFailed, "A reload was refused, or has stopped at a worker that did not get ready."},
	{"reload-resumed", "A master goes on with the reload that the one before had begun."},
	{"reload-completed", "All workers of the unit that the reload has outdated are replaced."},
	{"reload-stopped", "The replacement of the workers of the unit has stopped, for the reason in the detail."},
	{Registered, "An endpoint is registered for a service."},
	{Deregistered, "A registered endpoint is removed."},
	{Expired, "A registered endpoint sent no heartbeat within its ttl, and is removed."},
	{MasterStarted, "A master has started."},
	{MasterCrashed, "A starting master has found that the one before did not stop in an orderly way."},
	{MasterStopped, "The master has stopped or left its workers running, as the detail says."},
	{Down, "An operator has ended the master and its workers."},
	{Detached, "An operator has ended the master, which leaves its workers running."},
	{Upgraded, "The program of the master was replaced in place."},
	{UpgradeFailed, "The program of the master was not replaced: the former one serves."},
	{FromBackup, "The state was lost and is restored from a backup; events after the backup are lost."},
	{FromProcesses, "The state was lost and is made anew, or a worker is known only from its living process."},
}

// Names returns the names of all types.
func Names() []string {
	names := make([]string, len(All))
	for i, t := range All {
		names[i] = t.Name
	}
	return names
}
