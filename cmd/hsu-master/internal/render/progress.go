package render

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
)

// Progress shows on a terminal how far an operation is that takes more than a second, on one line that it clears
// at the end. If the output is not a terminal, it prints nothing.
type Progress struct {
	Done, Total atomic.Int64 // in bytes; Total is 0 if it is not known
	stop, over  chan struct{}
	Detail      atomic.Pointer[string] // the condition that ends the wait, nil if it is not known
}

const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
)

// StartProgress starts to show the progress of an operation such as "checking the state".
func StartProgress(w io.Writer, doing string) *Progress {
	return newProgress(w, doing, terminal.Is(w))
}

func newProgress(w io.Writer, doing string, terminal bool) *Progress {
	p := &Progress{stop: make(chan struct{}), over: make(chan struct{})}
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
				fmt.Fprint(w, "\r\x1b[K"+CutAt(doing+": "+p.text(now.Sub(began)), WidthFor(w)-1))
				timer.Reset(progressEvery)
			}
		}
	}()
	return p
}

func (p *Progress) text(took time.Duration) string {
	text := fmt.Sprintf("%d s", int(took.Seconds()))
	if total := p.Total.Load(); total > 0 {
		text = fmt.Sprintf("%d %%, %s", 100*p.Done.Load()/total, text)
	}
	if detail := p.Detail.Load(); detail != nil && *detail != "" {
		text += ", " + *detail
	}
	return text
}

// End clears the line. It must be called before anything else is printed.
func (p *Progress) End() {
	close(p.stop)
	<-p.over
}
