package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// use is the decision that a check makes.
type use string

const (
	useStart     use = "start"     // the first status "running"
	useHealth    use = "health"    // calls and restarts
	useReadiness use = "readiness" // calls
	useLiveness  use = "liveness"  // restarts
)

// passed returns the event of a check that was passed.
func (u use) passed() lifecycle.EventKind {
	switch u {
	case useReadiness:
		return lifecycle.EvServing
	case useLiveness:
		return lifecycle.EvAlive
	default:
		return lifecycle.EvPong
	}
}

// missed returns the event of a check that was not passed.
func (u use) missed() lifecycle.EventKind {
	if u == useReadiness {
		return lifecycle.EvNotServing
	}
	return lifecycle.EvSilent
}

// check is a repeated check of the present instance.
type check struct {
	use    use
	spec   probe.Spec
	prober probe.Prober
	*probe.Check
}

// failure returns the reason of a worker that did not pass the check, and may be busy until limit.
func (c check) failure(err error, s silence, limit time.Duration) string {
	what, why := c.prober.Describe(), probe.Brief(err)
	if c.spec.Type == probe.TypeAuto || c.spec.Type == probe.TypePing {
		what, why = "no answer to "+what, err.Error()
	}
	if s.busy && s.use != "" {
		what, why = fmt.Sprintf("%s for %s", what, s.lasts.Round(time.Second)), s.String()
		if limit > 0 {
			why += ", ended at " + limit.String()
		}
	}
	return what + ": " + why
}

// startChecks has the worker checked at each interval.
func (w *owner) startChecks() {
	w.stopChecks()
	if u := w.unit; u.OneCheck() {
		w.check(w.newCheck(useHealth, u.Health.Readiness))
	} else {
		w.check(w.newCheck(useReadiness, u.Health.Readiness), w.newCheck(useLiveness, u.Health.Liveness))
	}
}

func (w *owner) newCheck(what use, spec probe.Spec) check {
	incarnation := w.rec.Incarnation
	c := check{use: what, spec: spec, prober: w.subject().prober(what, spec, w.link)}
	m := meter{inst: w.inst}
	c.Check = w.env.Checks.Add(spec.Policy, c.prober.Ping, func(ctx context.Context, r probe.Result) {
		var s silence
		if what != useReadiness {
			s = m.observe(ctx, r) // here, where no worker waits for it
		}
		w.post(ctx, message{
			incarnation: incarnation,
			apply:       func(ctx context.Context) { w.onChecked(ctx, c, r, s) },
		})
	})
	return c
}

// CheckInfo is a check of a worker as its readers see it.
type CheckInfo struct {
	Use    string    // "start", "health", "readiness" or "liveness": what it decides about
	Probe  string    // kind and target; for a start, the condition such as "port 40001"
	Answer string    // the last answer, "" if it passed or there is none
	Passed bool      // the last answer
	At     time.Time // of the last answer; zero: none yet
	Due    time.Time // of the next check; zero: it is being made
}

// Checks returns the checks that are made now: that of a start, or those of a running worker.
func (w *Worker) Checks() []CheckInfo {
	if start := w.startup.waits(); start != nil {
		return []CheckInfo{start.info()}
	}
	checks := w.checked.Load()
	if checks == nil {
		return nil
	}
	list := make([]CheckInfo, 0, len(*checks))
	for _, c := range *checks {
		info := CheckInfo{Use: string(c.use), Probe: c.prober.String(), Due: c.Due()}
		if last := c.Last(); last != nil {
			info.At, info.Passed = last.At, last.Err == nil
			if last.Err != nil {
				info.Answer = probe.Brief(last.Err)
			}
		}
		list = append(list, info)
	}
	return list
}

// subject is the present instance as its checks see it. It may be used by any goroutine.
type subject struct {
	env    *Env
	unit   *unit.Spec
	worker string
	inst   launcher.Instance
	rec    records.Instance
	*notified
}

func (w *owner) subject() subject {
	return subject{
		env: w.env, unit: w.unit, worker: w.id, inst: w.inst, rec: *w.rec.Instance,
		notified: w.notices.present.Load(),
	}
}

// connects reports whether the instance needs a connection to its port. An instance that was started without a port
// has none until it is replaced, whatever its unit says now.
func (s subject) connects() bool { return s.rec.Port != 0 && s.unit.Connects() }

// dial returns the link to the instance.
func (s subject) dial() (Link, error) {
	if !s.connects() {
		return processLink{s.inst}, nil
	}
	return s.env.Dial(s.rec.Port)
}

// prober returns the prober of a check by the link. An instance without the port or
// socket of the check is checked by its process.
func (s subject) prober(what use, spec probe.Spec, l Link) probe.Prober {
	if s.rec.Port == 0 && spec.UsesPort() || spec.Type == probe.TypeNotify && s.notified == nil {
		spec = probe.Spec{Type: probe.TypeProcess, Policy: spec.Policy}
	}
	expanded, err := spec.Expand(s.unit.Placeholders(s.worker, s.rec.Port))
	if err != nil {
		return probe.Unusable(spec, err)
	}
	prober := s.env.Prober(expanded, probe.Target{
		Address: ports.Address(s.rec.Port), Auto: l, Conn: l.GRPC(), Process: processLink{s.inst}, Run: s.run,
		Notified: func(context.Context) error { return s.verdict(what, spec.Interval, time.Now()) },
	})
	if len(s.unit.Env) == 0 {
		return prober
	}
	_, env, err := s.unit.Launch(s.worker, s.rec.Port)
	if err != nil {
		return probe.Unusable(spec, err)
	}
	return masking{prober, env}
}

// probeOf is the id of the processes that check a worker. No slot has it, so the next master stops those that a crash
// has left.
func probeOf(worker string) string { return worker + "/probe" }

// run runs the command of a check.
func (s subject) run(ctx context.Context, command []string) (oneshot.Ran, error) {
	path, err := unit.LookUp(command[0])
	if err != nil {
		return oneshot.Ran{}, err
	}
	_, env, err := s.unit.Launch(s.worker, s.rec.Port)
	if err != nil {
		return oneshot.Ran{}, err
	}
	c := launcher.Command{Path: path, Args: command[1:], Env: env, Dir: s.unit.Dir, Attributes: s.unit.Attributes}
	return s.env.Launcher.Run(ctx, c, probeOf(s.worker), launcher.NewToken())
}
