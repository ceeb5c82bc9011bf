// Package domain is what every Host System Unit offers, whatever carries it: it can be asked whether it serves.
package domain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-core/go/logging"
)

// Contract is what every unit offers.
type Contract interface {
	// Ping returns nil while the unit is able to serve.
	Ping(ctx context.Context) error
}

// NewDefaultHandler returns a Contract whose Ping succeeds. The logger may be nil.
func NewDefaultHandler(logger logging.Logger) Contract {
	return &defaultHandler{logger: orSilent(logger)}
}

type defaultHandler struct{ logger logging.Logger }

func (h *defaultHandler) Ping(context.Context) error {
	h.logger.Debugf("ping")
	return nil
}

// maxRetryInterval is where [RetryPing] stops to double its interval. A unit that needs a minute to start is
// then still seen within seconds of being ready.
const maxRetryInterval = 10 * time.Second

// RetryPingOptions says how often [RetryPing] tries, and how long it waits in between.
type RetryPingOptions struct {
	// RetryAttempts is the number of pings, the first one included.
	RetryAttempts int
	// RetryInterval is the pause after the first failed ping. It doubles with each further one, up to 10 s
	// or to RetryInterval itself where that is longer. 0 and less is no pause.
	RetryInterval time.Duration
}

// RetryPing pings client until it answers and returns nil then. Whatever error a ping ends with is retried.
//
// It returns an error when the last of the attempts has failed (wrapping that failure), when none was asked
// for, and at once when ctx ends (wrapping ctx.Err() and the failure before it). A ping under way is ended
// through the ctx that it is given. The logger may be nil.
func RetryPing(ctx context.Context, client Contract, options RetryPingOptions, logger logging.Logger) error {
	logger = orSilent(logger)
	if options.RetryAttempts <= 0 {
		return fmt.Errorf("retry ping: no attempt allowed: RetryAttempts is %d", options.RetryAttempts)
	}

	pause := max(options.RetryInterval, 0)
	longest := max(pause, maxRetryInterval)
	var failure error
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return ended(err, failure)
		}
		if failure = client.Ping(ctx); failure == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return ended(err, failure)
		}
		if attempt == options.RetryAttempts {
			return fmt.Errorf("retry ping: failed %d times, the last: %w", attempt, failure)
		}
		logger.Debugf("ping %d of %d failed, next in %v: %v", attempt, options.RetryAttempts, pause, failure)

		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = longer(pause, longest)
	}
}

// longer doubles d, up to limit, and can not overflow.
func longer(d, limit time.Duration) time.Duration {
	if d > limit/2 {
		return limit
	}
	return 2 * d
}

func ended(ctxErr, failure error) error {
	if failure == nil || errors.Is(failure, ctxErr) {
		return fmt.Errorf("retry ping: %w", ctxErr)
	}
	return fmt.Errorf("retry ping: %w (the last ping: %w)", ctxErr, failure)
}

func orSilent(logger logging.Logger) logging.Logger {
	if logger == nil {
		return logging.NewLogger("", logging.LogFuncs{})
	}
	return logger
}
