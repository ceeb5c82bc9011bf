//go:build e2e && crash && linux

package crash

import (
	"errors"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// Operations of an operator: verbs on a worker.

// halted is the worker that the operator stops and starts.
const halted = "worker-1"

func operationsOfVerbs() []*operation {
	return []*operation{
		{
			name: "worker stopped", life: 12, mayEnd: theSecondEnds, prepare: operated,
			begin: func(r *rig) error {
				if r.act("stop", false) == nil {
					r.workers.verbs.promised = "stopped"
				}
				return nil
			},
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-exit-record"] == before["after-exit-record"] {
					return errors.New("the worker was not stopped")
				}
				return nil
			},
			after: startedAgain,
		},
		{
			name: "worker started", life: 12, mayEnd: theSecondEnds,
			prepare: func(r *rig) error {
				if err := operated(r); err != nil {
					return err
				}
				if err := r.act("stop", true); err != nil {
					return err
				}
				r.workers.verbs.stopped = true
				return nil
			},
			begin: func(r *rig) error {
				if r.act("start", false) == nil {
					r.workers.verbs.promised = "running"
				}
				return nil
			},
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-ready-record"] == before["after-ready-record"] {
					return errors.New("the worker is not ready")
				}
				return nil
			},
			after: startedAgain,
		},
		{
			name: "unit disabled", life: 12, mayEnd: allEnd, prepare: configured,
			begin: disables,
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-removal"]-before["after-removal"] < workersOfATrial {
					return errors.New("the workers were not removed")
				}
				return nil
			},
			after: enabledAgain,
		},
		{
			name: "unit enabled", life: 12, mayEnd: allEnd,
			prepare: func(r *rig) error {
				ctx, cancel := brief()
				defer cancel()
				err := errors.Join(configured(r), r.admin.act(ctx, &adminpb.ActRequest{
					Verb: "disable", Names: []string{"worker"},
				}))
				r.workers.count = 0
				return errors.Join(err, r.workers.forgetAll())
			},
			begin: func(r *rig) error {
				ctx, cancel := brief()
				defer cancel()
				_ = r.admin.act(ctx, &adminpb.ActRequest{Verb: "enable", Names: []string{"worker"}, NoWait: true})
				return nil // the master may be killed meanwhile
			},
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-ready-record"]-before["after-ready-record"] < workersOfATrial {
					return errors.New("the workers are not ready")
				}
				return nil
			},
			after: enabledAgain,
		},
		{
			name: "worker signalled", life: 12, prepare: operated,
			begin: func(r *rig) error {
				_ = r.act("signal", false) // the master may be killed meanwhile
				return nil
			},
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-signal"] == before["after-signal"] {
					return errors.New("no signal was sent")
				}
				return nil
			},
		},
	}
}

// operated makes the model expect that an operator stops and starts a worker.
func operated(r *rig) error {
	r.workers.verbs = verbs{expected: true}
	r.workers.refilled = true // by a start
	return nil
}

// act has the running master execute a verb for the worker.
func (r *rig) act(verb string, wait bool) error {
	ctx, cancel := brief()
	defer cancel()
	return r.admin.act(ctx, &adminpb.ActRequest{
		Verb: verb, Names: []string{halted}, Signal: "CONT", NoWait: !wait,
	})
}

// disables has the running master disable its unit.
func disables(r *rig) error {
	ctx, cancel := brief()
	defer cancel()
	_ = r.admin.act(ctx, &adminpb.ActRequest{Verb: "disable", Names: []string{"worker"}, NoWait: true})
	return nil // the master may be killed meanwhile
}

// enabledAgain has the unit enabled, whatever became of the operation.
func enabledAgain(r *rig) error {
	if r.workers.recorded.Disabled { // then the workers were removed
		if err := r.workers.forgetAll(); err != nil {
			return err
		}
	}
	ctx, cancel := brief()
	defer cancel()
	if err := r.admin.act(ctx, &adminpb.ActRequest{Verb: "enable", Names: []string{"worker"}}); err != nil {
		return err
	}
	return r.again(noneEnds)
}

// startedAgain has the worker started, whatever became of the operation.
func startedAgain(r *rig) error {
	r.workers.verbs.promised = ""
	if err := r.act("start", true); err != nil {
		return err
	}
	return r.again(noneEnds)
}
