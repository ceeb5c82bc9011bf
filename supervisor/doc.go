// Package supervisor starts workers, finds them again after a crash of the master, watches their health, restarts
// them and offers the ready ones to callers.
//
// This package has the set of workers. Package unit has the description of a unit, package worker one worker, package
// lifecycle how it reacts to an event. When the master starts, package recovery decides what to do with each worker
// that an earlier master left. Packages launcher, process, ports, logs and probe are the outside world.
//
// Package services picks the endpoint for each call (calls.go). The workers fill its registry with themselves and the
// services that they report, and package registrations with endpoints that are not workers of this master.
//
// # Promises
//
// An intent is durable before the act: a worker is recorded as starting, with its token and port, before the fork,
// and as stopping before the signal. A fact is recorded right after it happens. So wherever a master is killed, the
// store describes either the actual state or the act that was about to happen.
//
// # Hazards
//
//   - A PID is not an identity, and silence is not death: a worker whose
//     identity cannot be verified is held; no second copy is started.
//   - A worker must not notice that its master is gone: it has a session of its
//     own and writes to a file, not to a pipe.
//   - A caller of [Supervisor.Acquire] must end the pick, else a stopping
//     worker drains until its grace is over.
package supervisor
