// Package supervisor starts workers, finds them again after a crash of the master, watches their health, restarts
// them and offers the ready ones to callers.
//
// One goroutine owns one worker (worker.go); helper goroutines send their results to its inbox. A pure function decides
// how the worker reacts to an event (state.go); start.go, health.go and stop.go execute the decision, and journal.go
// makes it durable. When the master starts, another pure function decides what to do with each worker (decision.go)
// from the evidence that inspect.go collects, and recover.go executes the decision; plan.go makes the same decision
// without executing it.
//
// Package services picks the endpoint for each call (routes.go). This package fills its registry with the ready workers
// and the services that they report (offers.go, discovery.go), and with registered endpoints that are not
// workers of this master (package registrations).
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
