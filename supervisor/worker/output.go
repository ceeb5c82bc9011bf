package worker

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// output is where the present instance of a worker, or the last one, writes its output.
type output struct {
	worker  string
	path    string      // of the worker's file
	to      logs.Target // the wish of the unit when that instance was started or adopted
	instead bool        // the output goes to the file all the same
}

func newOutput(dir, worker string, u *unit.Spec) output {
	return output{worker: worker, path: logs.Path(dir, worker), to: u.Log.To}
}

// follow notes where the output of a started or adopted instance goes. It returns why that is the worker's file if the
// unit wishes otherwise, and nil if that was so before.
func (o *output) follow(to logs.Target, inst launcher.Output) (news error) {
	var fallback error
	if to != logs.ToFile {
		fallback = inst.Fallback(o.path)
	}
	if !o.instead {
		news = fallback
	}
	o.to, o.instead = to, fallback != nil
	return news
}

// elsewhere tells people where the output goes if that is not the worker's file.
func (o *output) elsewhere() string {
	if o.instead {
		return ""
	}
	return o.to.Elsewhere(o.worker)
}

// tail returns the last lines in the worker's file, nil if its output does not go there.
func (o *output) tail() []string {
	if o.elsewhere() != "" {
		return nil
	}
	return logs.Tail(o.path)
}

// markStart begins the output of another instance in the worker's file. It comes before the record of the start: from
// that on, only the values of the present environment can be recognised in the output, and masked. markStart returns
// the open file, or nil if the instance writes elsewhere or the file cannot be written.
func (o *output) markStart(to logs.Target, incarnation uint64) (file *os.File) {
	// If it fails, as on a full disk, the next lines fail too, and the last output shown is that of before.
	_ = crashpoint.Do(crashpoint.LogOpen, func() (err error) {
		file, err = logs.MarkStart(filepath.Dir(o.path), o.worker, to, incarnation)
		return err
	})
	if to != logs.ToFile {
		_ = file.Close() // nil has no descriptor to close
		return nil
	}
	return file
}

// rotate has the worker's file rotated by the policy of its unit. An instance, if there is one, reports whether its
// processes only append to the file, and whether they write to one that was deleted. A command of a hook is no member
// of that family, and may write otherwise.
//
// Of a worker that writes elsewhere, only a file from before is looked after.
func (o *output) rotate(r *rotate.Rotator, u *unit.Spec, inst launcher.Instance, h *hooks) {
	if u.Log.To != logs.ToFile {
		if _, err := os.Lstat(o.path); errors.Is(err, fs.ErrNotExist) {
			r.Remove(o.worker)
			return
		}
	}
	l := rotate.Log{Path: o.path, Policy: u.Log.Policy}
	if inst != nil {
		l.Lost = func() bool { return inst.OutputLost(l.Path) }
		l.AppendsOnly = appendsOnly(inst, h, l.Path)
	}
	r.Put(o.worker, l)
}

func appendsOnly(inst launcher.Output, hooks *hooks, path string) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		if hooks.running() != "" {
			return false, nil
		}
		return inst.AppendsOnly(ctx, path)
	}
}
