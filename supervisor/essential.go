package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/core-tools/hsu-master/supervisor/worker"
)

// EssentialError is the error of [Supervisor.Serve] if it has stopped everything because an essential worker has
// failed, or has ended.
type EssentialError struct {
	Worker  string
	Reason  string
	LogPath string // of the worker's output; empty if it goes elsewhere
	// Succeeded means that the worker has ended with a success code, and was not to be restarted.
	Succeeded bool
	// Err has the faults of the stop, nil if there were none.
	Err error
}

func (e *EssentialError) Error() string {
	text := fmt.Sprintf("essential worker %s failed: %s", e.Worker, e.Reason)
	if e.Succeeded {
		text = fmt.Sprintf("essential worker %s ended: %s", e.Worker, e.Reason)
	}
	if e.Err != nil {
		text += "\n" + e.Err.Error()
	}
	return text
}

func (e *EssentialError) Unwrap() error { return e.Err }

// stopper returns the function by which an essential worker that has ended cancels the context of Serve. Then it calls
// told, unless that is nil.
func stopper(ctx context.Context, cancel context.CancelCauseFunc, log *slog.Logger, told func()) func(worker.End) {
	var first atomic.Bool
	return func(end worker.End) {
		if ctx.Err() != nil || !first.CompareAndSwap(false, true) {
			return // the master stops already
		}
		log.Warn("essential worker ended, master stopping", "worker", end.Worker, "reason", end.Reason,
			"succeeded", end.Succeeded)
		cancel(&EssentialError{
			Worker: end.Worker, Reason: end.Reason, LogPath: end.LogPath, Succeeded: end.Succeeded,
		})
		if told != nil {
			told()
		}
	}
}

// outcome returns the result of a Serve whose context was cancelled with that cause, and whose stop had these faults.
func outcome(cause, faults error) error {
	if essential, ended := errors.AsType[*EssentialError](cause); ended {
		return &EssentialError{
			Worker: essential.Worker, Reason: essential.Reason, LogPath: essential.LogPath,
			Succeeded: essential.Succeeded, Err: faults,
		}
	}
	return faults
}
