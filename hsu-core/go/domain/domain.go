// Package domain defines what every Host System Unit offers, over any transport: it reports whether it can serve.
package domain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-core/go/logging"
)

// Contract is the interface of every unit.
type Contract interface {
	// Ping returns nil if the unit is able to serve.
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

// maxRetryInterval is the interval at which [RetryPing] stops doubling. With it, a unit that needs a minute to
// start is found within seconds of being ready.
const maxRetryInterval = 10 * time.Second

// RetryPingOptions configure how often [RetryPing] tries, and how long it waits between attempts.
type RetryPingOptions struct {
	// RetryAttempts is the number of Pings, including the first one.
	RetryAttempts int
	// RetryInterval is the pause after the first failed Ping. It doubles after each further one, up to 10 s or to
	// RetryInterval itself if that is longer. 0 or less means no pause.
	RetryInterval time.Duration
}

// RetryPing pings client until it answers, and then returns nil. It retries regardless of the error.
//
// It returns an error if the last attempt has failed (wrapping that failure) or if RetryAttempts is 0 or less. If
// ctx ends, it returns at once with an error that wraps ctx.Err() and the failure before it. The end of ctx also
// ends a Ping in progress. The logger may be nil.
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

// longer doubles d, up to limit, without overflow.
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
