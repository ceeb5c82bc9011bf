//go:build e2e && crash && linux

package crash

import "errors"

// Operations of an operator: changes of the number of workers.

func operationsOnUnits() []*operation {
	return []*operation{
		{
			name: "scaled down", life: 12, mayEnd: theSecondEnds, prepare: configured,
			begin: scales(workersOfATrial - 1),
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-removal"] == before["after-removal"] {
					return errors.New("the surplus worker was not removed")
				}
				return nil
			},
			after: scaledBack,
		},
		{
			name: "scaled up", life: 12, prepare: configured, begin: scales(workersOfATrial + 1),
			rest: func(_ *rig, before, now map[string]int) error {
				if now["after-ready-record"] == before["after-ready-record"] {
					return errors.New("the new worker is not ready")
				}
				return nil
			},
			after: scaledBack,
		},
	}
}

// configured makes the model expect as many workers as are recorded, whatever masters are started with.
func configured(r *rig) error {
	r.workers.configured, r.workers.promised = workersOfATrial, 0
	return nil
}

// scales returns a function that has the running master change the number of workers. Once it has agreed, it must not
// lose the number.
func scales(n int) func(*rig) error {
	return func(r *rig) error {
		ctx, cancel := brief()
		defer cancel()
		if r.admin.scale(ctx, int32(n), false) == nil {
			r.workers.promised = n
		}
		return nil
	}
}

// scaledBack restores the number of workers. The model sees at each inspection which workers are gone, and may be new
// ones later.
func scaledBack(r *rig) error {
	if err := r.again(noneEnds); err != nil {
		return err
	}
	r.workers.promised = 0
	ctx, cancel := brief()
	defer cancel()
	if err := r.admin.scale(ctx, workersOfATrial, true); err != nil {
		return err
	}
	return r.again(r.workers.isSurplus)
}

// again kills the master, which may have ended some workers, and has another one recover.
func (r *rig) again(mayEnd func(worker string) bool) error {
	if err := r.masters.kill(); err != nil {
		return err
	}
	before, err := r.inspect(mayEnd)
	if err != nil {
		return err
	}
	return r.recovered(before)
}
