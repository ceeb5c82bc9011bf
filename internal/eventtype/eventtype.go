// Package eventtype has the types of the events in the history, for the packages that record them and for the
// configuration file, in which commands are configured for them.
package eventtype

import (
	"maps"
	"slices"
)

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
)

// Types of the events of operators' commands: each is the verb itself. The outcome of a command that takes some time is
// an event of its own, whose type is the verb with a suffix.
const (
	Start            = "start"
	Stop             = "stop"
	Signal           = "signal"
	Restart          = "restart"
	RestartResumed   = "restart-resumed"
	RestartCompleted = "restart-completed"
	RestartStopped   = "restart-stopped"
	Scale            = "scale"
	Enable           = "enable"
	Disable          = "disable"
	Reload           = "reload"
	ReloadFailed     = "reload-failed"
	ReloadResumed    = "reload-resumed"
	ReloadCompleted  = "reload-completed"
	ReloadStopped    = "reload-stopped"
	Upgrade          = "upgrade"
	UpgradeFailed    = "upgrade-failed"
	Detach           = "detach"
	Down             = "down"
)

// Types of the events of a unit, a service or the master.
const (
	Registered    = "service-registered"
	Deregistered  = "service-deregistered"
	Expired       = "service-expired"
	MasterStarted = "master-started"
	MasterStopped = "master-stopped"
	MasterCrashed = "master-crashed"
	// FromBackup and FromProcesses record how a lost database was recovered.
	FromBackup    = "recovered-from-backup"
	FromProcesses = "recovered-from-processes"
	// StateFailed has the time at which the state could not be written any more. It is recorded with StateRepaired.
	StateFailed         = "state-failed"
	StateRepaired       = "state-repaired"
	BackupFailed        = "backup-failed"
	BackupResumed       = "backup-resumed"
	CertificateReloaded = "certificate-reloaded"
	CertificateFailed   = "certificate-failed"
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
	{Found, "The process of an unmanaged unit is found."},
	{"absent", "There is no process of an unmanaged unit."},
	{Start, "An operator has started the worker."},
	{Stop, "An operator has stopped the worker, until a start."},
	{Signal, "An operator has sent the worker the signal in the detail."},
	{Restart, "An operator has restarted workers: one by one, each when the one before is ready."},
	{RestartResumed, "A restart goes on after the master was killed or replaced."},
	{RestartCompleted, "The restarted workers of the unit are ready."},
	{RestartStopped, "A restart has stopped at a worker that did not get ready; the others run as they did."},
	{Scale, "An operator has set the number of workers of a unit."},
	{Enable, "An operator has enabled a unit."},
	{Disable, "An operator has disabled a unit, until it is enabled."},
	{Reload, "The units were read again, and the changes in the detail have begun."},
	{ReloadResumed, "The replacement or the new try of workers goes on after the master was killed or replaced."},
	{ReloadCompleted, "The replaced workers of the unit, and those tried anew, are ready."},
	{ReloadStopped, "A reload stopped at a replaced or tried worker that did not get ready; the others stay."},
	{ReloadFailed, "A reload was refused, or has stopped."},
	{Upgrade, "The program of the master was replaced by the one in the detail."},
	{UpgradeFailed, "A new program of the master was refused or did not serve; the former one goes on."},
	{Detach, "An operator has ended the master; the workers are left running."},
	{Down, "An operator has ended the master; the workers are stopped."},
	{Registered, "An endpoint is registered for a service."},
	{Deregistered, "A registered endpoint is removed."},
	{Expired, "A registered endpoint sent no heartbeat within its ttl, and is removed."},
	{MasterStarted, "A master has started."},
	{MasterCrashed, "A starting master has found that the one before did not stop in an orderly way."},
	{MasterStopped, "The master has stopped or left its workers running, as the detail says."},
	{FromBackup, "The state was lost and is restored from a backup; events after the backup are lost."},
	{FromProcesses, "The state was lost and is made anew, or a worker is known only from its living process."},
	{StateFailed, "The state could not be written from then on, as on a full disk; recorded when it can be again."},
	{StateRepaired, "The state can be written again."},
	{BackupFailed, "A backup of the state has failed, and is tried again."},
	{BackupResumed, "After that, a backup was made."},
	{CertificateReloaded, "The files of the certificate have changed, and the new one is used."},
	{CertificateFailed, "The files of the certificate have changed and cannot be used; the former one stays in use."},
}

// older maps the types that earlier releases have recorded to the present ones.
var older = map[string]string{"unit-scaled": Scale, "reloaded": Reload}

// Current returns the present name of a type that may be of an earlier release.
func Current(name string) string {
	if now, renamed := older[name]; renamed {
		return now
	}
	return name
}

// Selectable returns the names of all types, and those of earlier releases.
func Selectable() []string { return append(Names(), slices.Sorted(maps.Keys(older))...) }

// Names returns the names of all types.
func Names() []string {
	names := make([]string, len(All))
	for i, t := range All {
		names[i] = t.Name
	}
	return names
}
