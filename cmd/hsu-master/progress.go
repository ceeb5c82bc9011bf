package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// progress shows on a terminal how far an operation is that takes more than a second, on one line that it clears
// at the end. If the output is not a terminal, it prints nothing.
type progress struct {
	done, total atomic.Int64 // in bytes; total is 0 if it is not known
	stop, over  chan struct{}
	detail      atomic.Pointer[string] // the condition that ends the wait, nil if it is not known
}

const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
)

// startProgress starts to show the progress of an operation such as "checking the state".
func startProgress(w io.Writer, doing string) *progress {
	return newProgress(w, doing, isTerminal(w))
}

func newProgress(w io.Writer, doing string, terminal bool) *progress {
	p := &progress{stop: make(chan struct{}), over: make(chan struct{})}
	if !terminal {
		close(p.over)
		return p
	}
	go func() {
		defer close(p.over)
		began := time.Now()
		timer := time.NewTimer(progressAfter)
		defer timer.Stop()
		for shown := false; ; shown = true {
			select {
			case <-p.stop:
				if shown {
					fmt.Fprint(w, "\r\x1b[K")
				}
				return
			case now := <-timer.C:
				fmt.Fprint(w, "\r\x1b[K"+cutAt(doing+": "+p.text(now.Sub(began)), widthFor(w)-1))
				timer.Reset(progressEvery)
			}
		}
	}()
	return p
}

func (p *progress) text(took time.Duration) string {
	text := fmt.Sprintf("%d s", int(took.Seconds()))
	if total := p.total.Load(); total > 0 {
		text = fmt.Sprintf("%d %%, %s", 100*p.done.Load()/total, text)
	}
	if detail := p.detail.Load(); detail != nil && *detail != "" {
		text += ", " + *detail
	}
	return text
}

// end clears the line. It must be called before anything else is printed.
func (p *progress) end() {
	close(p.stop)
	<-p.over
}
