package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
)

// newExec returns a prober by a command, which run runs.
func newExec(s Spec, run func(ctx context.Context, command []string) (oneshot.Ran, error)) Prober {
	shown := strings.Join(s.Command, " ")
	shown = strings.ToValidUTF8(shown[:min(len(shown), maxAnswer)], "\uFFFD")
	return question{string(TypeExec) + " " + shown, shown, func(ctx context.Context) error {
		ran, err := run(ctx, s.Command)
		if err == nil {
			err = resultOf(ran)
		}
		if err == nil || ran.At.IsZero() {
			return err
		}
		return decided{err, ran.At}
	}}
}

// resultOf returns nil for a command that exited with code 0.
func resultOf(ran oneshot.Ran) error {
	var text string
	switch exit := ran.Exit; {
	case ran.Cut:
		text = errNoAnswer.Error()
	case exit.Clean():
		return nil
	case exit.Signal != 0:
		text = exit.String()
	default:
		text = fmt.Sprintf("exit code %d", exit.Code)
	}
	if line := lastLine(ran.Output); line != "" {
		text += ": " + line
	}
	return errors.New(text)
}

// lastLine returns the last line of an output that is not blank. It returns "" if the beginning of that line was not
// kept: half of a secret would not be recognised.
func lastLine(output []byte) string {
	kept := bytes.TrimSpace(output)
	begin := bytes.LastIndexAny(kept, "\r\n") + 1
	if begin == 0 && len(output) >= oneshot.OutputKept {
		return ""
	}
	return string(bytes.TrimSpace(kept[begin:]))
}

// decided is the error of a check that was decided before it ended: killing the family of a command takes longer than
// a check may be late.
type decided struct {
	error
	at time.Time
}

func (d decided) Unwrap() error { return d.error }
