package records

// Types of the events of a worker besides its statuses, which are types too.
const (
	EventStarted     = "started"
	EventAdopted     = "adopted"
	EventExited      = "exited"
	EventGone        = "gone"
	EventFound       = "found"
	EventHeld        = "held"
	EventLeftover    = "leftover"
	EventPortChanged = "port-changed"
	EventRemoved     = "removed"
	EventRunDue      = "run-due"
	EventRunMissed   = "run-missed"
	EventRunSkipped  = "run-skipped"
	EventHookFailed  = "hook-failed"
	EventUnenforced  = "limits-unenforced"
	EventMemory      = "memory"
	EventLogFallback = "log-fallback"
	EventTruncated   = "log-truncated"
	EventLogDeleted  = "log-deleted"
	EventReadyLost   = "ready-lost"
	EventStart       = "start"
	EventStop        = "stop"
	EventSignal      = "signal"
)

// Types of the events of a unit, a service or the master.
const (
	EventScaled        = "unit-scaled"
	EventReloaded      = "reloaded"
	EventReloadFailed  = "reload-failed"
	EventRegistered    = "service-registered"
	EventDeregistered  = "service-deregistered"
	EventExpired       = "service-expired"
	EventMasterStarted = "master-started"
	EventMasterStopped = "master-stopped"
	EventMasterCrashed = "master-crashed"
	// EventFromBackup and EventFromProcesses record how a lost database was recovered.
	EventFromBackup    = "recovered-from-backup"
	EventFromProcesses = "recovered-from-processes"
)

// EventType is a type of events with its meaning, as in docs/EVENTS.md.
type EventType struct{ Name, Doc string }

// EventTypes are all types of events.
var EventTypes = []EventType{
	{string(StatusWaiting), "The worker waits for the units that it depends on."},
	{string(StatusStarting), "The start of the worker is recorded, and its process is started next."},
	{EventStarted, "The process of the worker runs."},
	{EventAdopted, "A starting master has taken over the living process of the worker."},
	{string(StatusRunning), "The worker is ready."},
	{string(StatusUnhealthy), "The worker fails its health check and gets no calls."},
	{string(StatusStopping), "The worker is about to be stopped, for the reason in the detail."},
	{EventExited, "The process of the worker has ended, with the exit code or signal in the detail."},
	{EventGone, "The process has ended, and how is not known, such as that of an earlier boot or of an unmanaged unit."},
	{string(StatusStopped), "The worker is stopped and stays so."},
	{string(StatusBackoff), "The worker has ended, and is restarted after a delay."},
	{string(StatusFailed), "The worker has used up its restarts, or cannot be started."},
	{string(StatusCompleted), "The worker has ended with a success code, and is not restarted."},
	{string(StatusScheduled), "The worker waits for the next due time of its schedule."},
	{EventRunDue, "A run of a unit with a schedule is due and begins."},
	{EventRunMissed, "Runs were due while no master ran."},
	{EventRunSkipped, "A run was due while the one before went on."},
	{EventMemory, "The worker uses more memory than `memory_restart`, and is restarted."},
	{EventHookFailed, "A command of `start.before`, `stop.command` or `stop.after` has failed."},
	{EventUnenforced, "Limits of the worker cannot be enforced."},
	{EventPortChanged, "The worker gets another port, as another process has its own."},
	{EventHeld, "It cannot be told whether the process of the worker lives, so none is started."},
	{EventLeftover, "Processes of the worker could not be killed."},
	{EventReadyLost, "The master crashed while the worker was starting, and a READY=1 may have been lost."},
	{EventLogFallback, "The output of the worker goes to its file, as it cannot go to the journal."},
	{EventTruncated, "The worker has truncated its own log."},
	{EventLogDeleted, "The log was deleted or moved while the worker writes to it."},
	{EventRemoved, "The worker is not wanted any more, and forgotten; its log is kept."},
	{EventStart, "An operator has started the worker."},
	{EventStop, "An operator has stopped the worker, until a start."},
	{EventSignal, "An operator has sent the worker the signal in the detail."},
	{EventFound, "The process of an unmanaged unit is found."},
	{string(StatusAbsent), "There is no process of an unmanaged unit."},
	{EventScaled, "An operator has set the number of workers of a unit."},
	{EventReloaded, "The units were read again, and the changes in the detail have begun."},
	{EventReloadFailed, "A reload was refused, or has stopped at a worker that did not get ready."},
	{EventRegistered, "An endpoint is registered for a service."},
	{EventDeregistered, "A registered endpoint is removed."},
	{EventExpired, "A registered endpoint sent no heartbeat within its ttl, and is removed."},
	{EventMasterStarted, "A master has started."},
	{EventMasterCrashed, "A starting master has found that the one before did not stop in an orderly way."},
	{EventMasterStopped, "The master has stopped or left its workers running, as the detail says."},
	{EventFromBackup, "The state was lost and is restored from a backup; events after the backup are lost."},
	{EventFromProcesses, "The state was lost and is made anew, or a worker is known only from its living process."},
}
