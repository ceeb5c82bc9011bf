// Package supervisor starts workers, finds them again after a crash of the
// master, watches their health, restarts them and hands out the ready ones.
//
// One goroutine owns one worker (worker.go). What it does about an event is
// decided by one pure function (state.go); what the decision needs done is in
// start.go, health.go and stop.go. What becomes of it at the beginning is decided by
// another pure function (decision.go), on the evidence that inspect.go collects, and
// carried out in recover.go; plan.go decides the same and does nothing.
//
// Who gets the next call is decided in package services, whose registry this package
// fills: with workers that are ready (routes.go), with what they tell of themselves
// (discovery.go), and with endpoints that are no workers of ours (outside.go).
//
// # Promises
//
// Intent is durable before the act (a worker is recorded as starting, with its
// token and port, before the fork; as stopping before the signal), facts right
// after it. So a master that is killed anywhere finds in the store either what
// is, or what it was about to do.
//
// # Hazards
//
//   - A PID is not an identity, and silence is not death: a worker whose
//     identity cannot be verified is held, never doubled.
//   - A worker must not notice that its master is gone: it has a session of its
//     own and writes to a file, not to a pipe.
//   - A caller of [Supervisor.Acquire] must release the lease, else a stopping
//     worker drains until its grace is over.
package supervisor
