package sharing

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// Callers that come while an answer is worked out share the next one, which is begun after they have come.
func TestCallersShareTheNextAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, release := 0, make(chan struct{})
		q := &Question[int]{Ask: func() (int, error) {
			asked++
			n := asked
			<-release
			return n, nil
		}}
		var wg sync.WaitGroup
		caller := func(want int) {
			wg.Go(func() {
				if got, err := q.Answer(t.Context()); got != want || err != nil {
					t.Errorf("answer %d, %v, want %d", got, err, want)
				}
			})
		}
		caller(1)
		synctest.Wait()
		for range 3 {
			caller(2)
		}
		synctest.Wait()
		close(release)
		wg.Wait()
		if asked != 2 {
			t.Errorf("asked %d times, want 2", asked)
		}
	})
}

// A caller that has no time left gets no answer, and no other caller loses one by that.
func TestAnswerEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := &Question[int]{Ask: func() (int, error) { <-release; return 7, nil }}
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := q.Answer(ctx); !errors.Is(err, enough) {
				t.Errorf("answer with %v, want %v", err, enough)
			}
		})
		wg.Go(func() {
			if got, err := q.Answer(t.Context()); got != 7 || err != nil {
				t.Errorf("answer %d, %v, want 7", got, err)
			}
		})
		synctest.Wait()
		cancel(enough)
		synctest.Wait()
		close(release)
		wg.Wait()
		if _, err := q.Answer(ctx); !errors.Is(err, enough) {
			t.Errorf("answer after the end of the context: %v, want %v", err, enough)
		}
	})
}
