package recovery

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Remnants are processes of a worker that no instance controls.
type Remnants struct {
	Launcher launcher.Launcher
	Worker   string
	Holders  []process.Holder // found by the scan
	Log      *slog.Logger
}

// Kill kills the remaining descendants of a dead instance.
func (r Remnants) Kill(ctx context.Context, rec records.Instance) error {
	left, err := r.Launcher.Sweep(ctx, r.Worker, rec)
	if err != nil {
		return fmt.Errorf("stop the descendants of process %d: %w", rec.PID, err)
	}
	if len(left) > 0 {
		return fmt.Errorf("%d descendants of process %d could not be killed, the first is %d",
			len(left), rec.PID, left[0].PID)
	}
	return nil
}

// KillOthers kills the processes that belong to an instance other than keep.
func (r Remnants) KillOthers(ctx context.Context, keep string) {
	killed := map[string]bool{keep: true}
	for _, h := range r.Holders {
		if killed[h.Token] {
			continue
		}
		killed[h.Token] = true
		r.Log.Info("process of another instance found", "pid", h.PID)
		if err := r.Kill(ctx, records.Instance{Token: h.Token, Process: identity.Process{PID: h.PID}}); err != nil {
			r.Log.Error("process of another instance not stopped", "pid", h.PID, "error", err)
		}
	}
}
